//! Health checks that speak a service's own protocol, each against the real server: well, asking for
//! a password, in the wrong role, hung, gone, and something else altogether.

mod agent;
mod databases;
mod exec;
mod grpc;
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

/// Sends `answer` to whoever connects, one piece after another, and closes. Ends with the tests.
fn nonsense(pieces: &'static [&'static [u8]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).unwrap();
            // Whoever has heard enough is gone; what was sent is read, or the close would be a
            // reset.
            let is_heard = pieces.iter().all(|piece| stream.write_all(piece).is_ok());
            if is_heard && stream.shutdown(std::net::Shutdown::Write).is_ok() {
                drop(stream.read_to_end(&mut Vec::new()));
            }
        }
    });
    address
}
