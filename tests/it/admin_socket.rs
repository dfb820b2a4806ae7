//! The sockets and the token of the admin side: whose they are, what may be in their way, and how a
//! start that cannot have them says so.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::api::Api;
use crate::harness::peers::Server;
use crate::harness::program::{Evenkeel, binary};
use crate::harness::servers::{Greeter, visits};
use crate::harness::tools::as_nobody;
use crate::harness::{eventually, plain, with_pool};

fn config(admin: &str, server: SocketAddr) -> String {
    with_pool(&format!("workers: 1\n{admin}"), "", &[server])
}

fn at(path: &Path) -> String {
    format!("admin: {{socket: {}}}", path.display())
}

#[test]
fn the_socket_is_the_owner_s_alone_and_goes_away_with_the_process() {
    let server = Server::listen();
    let mut evenkeel = Evenkeel::start(&plain(&[server.address()]));
    let api = evenkeel.api();
    let metadata = fs::symlink_metadata(api.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    evenkeel.signal("TERM");
    assert_eq!(evenkeel.exit().code(), Some(0));
    assert!(!api.socket().exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deeper/admin.sock");
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::listen();
    let config = config(&at(&path), server.address());
    let first = Evenkeel::start(&config);
    let api = Api::Unix(path.clone());
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    let file_of_first = api.status()["config"]["file"].clone();
    let mut second = Evenkeel::launch(&config);
    assert_eq!(second.exit().code(), Some(1));
    let said = second.errors().all();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("another program answers there"),
        "{said:?}"
    );
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
    assert_eq!(api.status()["config"]["file"], file_of_first);
    // One that was killed leaves its file, which its successor replaces.
    first.signal("KILL");
    eventually("nobody answers", || api.try_visit().is_none());
    assert!(path.exists());
    let _third = Evenkeel::start(&config);
    assert_ne!(api.status()["config"]["file"], file_of_first);
}

#[test]
fn a_socket_that_cannot_be_made_or_a_token_that_is_none_is_one_line() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "not a socket").unwrap();
    fs::write(path("empty"), " \n").unwrap();
    fs::write(path("words"), "two words").unwrap();
    let token = |name: &str| {
        let file = path(name);
        format!(
            "admin: {{socket: off, http: 127.0.0.1:0, http_token_file: {}}}",
            file.display()
        )
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (admin, part) in [
        (at(&path("file")), "what is there is no socket"),
        (at(&path("missing/deeper/admin.sock")), "make the folder"),
        (at(&path(&"x".repeat(120))), "at most 107"),
        (token("missing"), "No such file"),
        (token("empty"), "the file is empty"),
        (token("words"), "that is no token"),
        (
            format!("admin: {{socket: off, http: \"{taken}\"}}"),
            "another program has it",
        ),
    ] {
        let mut evenkeel = Evenkeel::launch(&config(&admin, taken));
        assert_eq!(evenkeel.exit().code(), Some(1), "{admin}");
        let said = evenkeel.errors().all();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains(part) && said[0].contains("admin"),
            "{said:?}"
        );
    }
    assert_eq!(fs::read(path("file")).unwrap(), b"not a socket");
}

#[test]
fn without_rights_for_the_usual_socket_it_says_so_once_and_serves() {
    let greeter = Greeter::listen(b'a');
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("evenkeel");
    fs::copy(binary(), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Nothing is said about the socket.
    let admin = "admin: {http: 127.0.0.1:0}";
    let config = config(admin, greeter.address());
    let evenkeel = Evenkeel::launch_with(&config, as_nobody(&program));
    assert_eq!(visits(evenkeel.address(), 2), "aa");
    let said = evenkeel.errors().all();
    let about: Vec<_> = said
        .iter()
        .filter(|line| line.contains("admin.sock"))
        .collect();
    assert_eq!(about.len(), 1, "{said:?}");
    assert!(about[0].contains("no admin socket at"), "{said:?}");
    assert_eq!(evenkeel.http().status()["stage"], "serving");
}
