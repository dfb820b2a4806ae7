//! Questions to a socket that socket2 does not ask, and what errno means where `ErrorKind` has no word.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::SockAddr;

use super::check;

/// `accept4(SOCK_NONBLOCK | SOCK_CLOEXEC)`: the new socket and who is at its other end; `None` for a
/// unix socket, whose other end has no address.
///
/// # Errors
/// EAGAIN where nobody waits; an error that is pending on the new socket (accept(2)); EMFILE, ENFILE,
/// ENOBUFS, ENOMEM.
pub fn accept(listening: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    const FLAGS: libc::c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let listening = listening.as_fd().as_raw_fd();
    let call = |address: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: the kernel writes at most `*length` bytes of an address, which is what there is at
        // `address`, and sets `length` to how many it wrote.
        let socket = unsafe { libc::accept4(listening, address.cast(), length, FLAGS) };
        check(i64::from(socket)).map(|_| socket)
    };
    // SAFETY: accept4 initializes the address that `try_init` hands it, or fails.
    let (socket, address) = unsafe { SockAddr::try_init(call) }?;
    // SAFETY: accept4 succeeded, so this is a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    Ok((socket, address.as_socket()))
}

/// `setsockopt(TCP_FASTOPEN)`: how many clients of a listening socket may wait that have sent bytes with
/// their SYN; 0 lets none. It takes effect where `net.ipv4.tcp_fastopen` lets servers do it.
///
/// # Errors
/// EOPNOTSUPP for what is no TCP socket; EINVAL for one that is connected.
pub fn set_fast_open(socket: impl AsFd, waiting_max: u32) -> io::Result<()> {
    let waiting_max = libc::c_int::try_from(waiting_max).unwrap_or(libc::c_int::MAX);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, waiting_max)
}

/// `setsockopt(IP_BIND_ADDRESS_NO_PORT)`: a bind to port 0 that follows fixes the address alone; the
/// port is chosen by connect, which may give the same one towards each other server. It holds for
/// IPv6 as well.
///
/// # Errors
/// ENOPROTOOPT before Linux 4.2.
pub fn bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set_int(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    const BYTES: libc::socklen_t = 4;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the four bytes of `value`, which lives until the call is over.
    let result =
        unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), BYTES) };
    check(i64::from(result)).map(|_| ())
}

/// `ioctl(SIOCOUTQ)`: bytes that were written to a TCP socket and are not acknowledged yet; of a unix
/// socket, memory of what its peer has not read yet, which is more than the bytes themselves.
///
/// # Errors
/// EINVAL for a listening socket.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int, for which `bytes` has room.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    check(i64::from(result))?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// `ioctl(FIONREAD)`: bytes that a TCP or unix socket has received, or a pipe holds, and nobody has read
/// yet.
///
/// # Errors
/// EINVAL for a listening socket.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD (the same number as SIOCINQ) writes one int, for which `bytes` has room.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    check(i64::from(result))?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// `getsockopt(SO_COOKIE)`: a number that no other socket of this network namespace ever has, and which
/// is the same behind each descriptor of this one, in every process.
///
/// # Errors
/// ENOTSOCK; ENOPROTOOPT before Linux 4.12.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    let mut length: libc::socklen_t = 8;
    let socket = socket.as_fd().as_raw_fd();
    let place = (&raw mut cookie).cast();
    // SAFETY: the kernel writes at most `length` bytes, for which `cookie` has room, and the length.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            place,
            &raw mut length,
        )
    };
    check(i64::from(result)).map(|_| cookie)
}

/// `connect(2)` with AF_UNSPEC: ends a TCP connection at once, with RST for the peer, however many other
/// descriptors of the socket there are. What was not acknowledged or not read is lost.
///
/// # Errors
/// None for a TCP socket but where the kernel lacks memory.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: a sockaddr is numbers, for which zero is a value; AF_UNSPEC is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    const BYTES: libc::socklen_t = 16;
    const _: () = assert!(size_of::<libc::sockaddr>() == BYTES as usize);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads BYTES bytes of `nowhere`, which lives until the call is over.
    let result = unsafe { libc::connect(socket, &raw const nowhere, BYTES) };
    check(i64::from(result)).map(|_| ())
}

/// `poll(2)` for POLLHUP: whether a TCP socket has ended both ways, each by a FIN of either side, or by RST.
pub fn has_hung_up(socket: impl AsFd) -> bool {
    let mut asked = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: poll reads and writes one pollfd, which `asked` is, and does not wait.
    let result = unsafe { libc::poll(&raw mut asked, 1, 0) };
    result > 0 && asked.revents & libc::POLLHUP != 0
}

/// `getsockopt(SO_PEERCRED)`: the user of whoever has connected to a unix socket, or has made the pair.
///
/// # Errors
/// ENOTSOCK; of another kind of socket, none is known: `InvalidInput`.
pub fn peer_user(socket: impl AsFd) -> io::Result<u32> {
    peer(socket).map(|peer| peer.uid)
}

/// The same: the number of the process that has connected, or that listens where we have connected.
///
/// # Errors
/// As [`peer_user`]; `InvalidInput` as well where it is in another pid namespace.
pub fn peer_process(socket: impl AsFd) -> io::Result<u32> {
    let number = u32::try_from(peer(socket)?.pid).unwrap_or(0);
    match number {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        number => Ok(number),
    }
}

fn peer(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let mut length: libc::socklen_t = size_of::<libc::ucred>()
        .try_into()
        .map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `peer`, of three integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    check(i64::from(result))?;
    match peer.uid {
        libc::uid_t::MAX => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(peer),
    }
}

/// `send(2)` without SIGPIPE. With `is_followed` the kernel holds a part that does not fill a segment
/// back for what follows at once, be it the FIN of a shutdown or a close (MSG_MORE).
///
/// # Errors
/// EAGAIN where there is no room; EPIPE and ECONNRESET where the socket has failed.
pub fn send(socket: impl AsFd, bytes: &[u8], is_followed: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if is_followed { libc::MSG_MORE } else { 0 };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a slice that is borrowed for the call.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) } as i64)
}

/// `recv(2)` of what has come without taking it (MSG_PEEK): the next call finds it again. 0 is the end,
/// with nothing before it.
///
/// # Errors
/// EAGAIN where nothing has come; else the socket has failed.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let (start, room) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the pointer and the length are those of a slice that is borrowed for the call, and any
    // bytes are good values for it.
    check(unsafe { libc::recv(fd, start, room, libc::MSG_PEEK) } as i64)
}

/// `close_range(2)` where the two descriptors are neighbours, which the two of a connection mostly
/// are because the kernel gives out the lowest free number; else `close(2)` for each.
pub fn close_pair(first: OwnedFd, second: OwnedFd) {
    if first.as_raw_fd().abs_diff(second.as_raw_fd()) != 1 {
        return drop((first, second));
    }
    let pair: [RawFd; 2] = [first.into_raw_fd(), second.into_raw_fd()];
    let (low, high) = (
        pair[0].min(pair[1]).cast_unsigned(),
        pair[0].max(pair[1]).cast_unsigned(),
    );
    // SAFETY: both descriptors were owned, were given up by `into_raw_fd`, and there is no third one
    // between neighbours, so that this closes exactly what was ours.
    let result = unsafe { libc::syscall(libc::SYS_close_range, low, high, 0) };
    if result != 0 {
        // A seccomp filter that is older than the call refuses it: nothing was closed.
        for descriptor in pair {
            // SAFETY: it is still open and was given up by `into_raw_fd`, so that nobody owns it.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}

/// Whether an error says that this process or the machine has run out of descriptors or memory,
/// which is nobody's fault at the other end: EMFILE, ENFILE, ENOBUFS, ENOMEM, and ENOSPC, by which
/// `epoll_ctl` says that `fs.epoll.max_user_watches` is reached.
pub fn is_exhausted(error: &io::Error) -> bool {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC};
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| [EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC].contains(&errno))
}

/// Whether `socket` says that the kernel does not have the family: EAFNOSUPPORT.
pub fn is_family_unknown(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Whether `connect` says that it goes on: EINPROGRESS, EALREADY.
pub fn is_in_progress(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINPROGRESS | libc::EALREADY)
    )
}

/// Whether a second `connect` says that the first one has succeeded: EISCONN.
pub fn is_connected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EISCONN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use socket2::{Domain, Socket, Type};

    #[test]
    fn a_pair_is_closed_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let streams: Vec<_> = (0..3)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            })
            .collect();
        let mut streams = streams.into_iter();
        let (kept, mut kept_peer) = streams.next().unwrap();
        // Neighbours, and a pair with others in between.
        let (a, b) = streams.next().unwrap();
        let (c, d) = streams.next().unwrap();
        let (mut a_peer, mut c_peer) = (b.try_clone().unwrap(), d.try_clone().unwrap());
        close_pair(a.into(), b.into());
        close_pair(c.into(), d.into());
        let mut rest = Vec::new();
        a_peer.read_to_end(&mut rest).unwrap();
        c_peer.read_to_end(&mut rest).unwrap();
        (&kept).write_all(b"x").unwrap();
        kept_peer.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn accepts_with_the_flags_and_the_address_of_either_kind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = accept(&listener).unwrap();
        assert_eq!(address, Some(client.local_addr().unwrap()));
        // Non-blocking: there is nothing to read.
        let error = TcpStream::from(socket).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        listener.set_nonblocking(true).unwrap();
        let error = accept(&listener).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let (socket, address) = accept(&listener).unwrap();
        assert_eq!(address, None);
        assert_eq!(
            (unread(&socket).unwrap(), unacknowledged(&client).unwrap()),
            (0, 0)
        );
        client.write_all(b"hello").unwrap();
        assert_eq!(unread(&socket).unwrap(), 5);
        assert!(unacknowledged(&client).unwrap() >= 5);
        let mut socket = UnixStream::from(socket);
        socket.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unacknowledged(&client).unwrap(), 0);
    }

    #[test]
    fn one_local_port_serves_several_servers() {
        let servers = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        for (server, source) in servers.iter().zip(["127.0.0.7:0", "127.0.0.8:0"]) {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            bind_address_no_port(&socket).unwrap();
            let source: SocketAddr = source.parse().unwrap();
            socket.bind(&source.into()).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(source));
            socket
                .connect(&server.local_addr().unwrap().into())
                .unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(own.ip(), source.ip());
            assert_ne!(own.port(), 0);
        }
        let six = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        bind_address_no_port(&six).unwrap();
        let source: SocketAddr = "[::1]:0".parse().unwrap();
        six.bind(&source.into()).unwrap();
        assert_eq!(six.local_addr().unwrap().as_socket(), Some(source));
    }

    #[test]
    fn what_was_looked_at_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut buffer = [0; 8];
        for room in [2, 5, 8] {
            let seen = peek(&peer, &mut buffer[..room]).unwrap();
            assert_eq!(&buffer[..seen], &b"hello"[..room.min(5)]);
        }
        peer.read_exact(&mut [0; 5]).unwrap();
        drop(stream);
        assert_eq!(peek(&peer, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn counts_what_nobody_has_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unread(&peer).unwrap(), 0);
        stream.write_all(b"hello").unwrap();
        peer.peek(&mut [0]).unwrap();
        assert_eq!(unread(&peer).unwrap(), 5);
        peer.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(unread(&peer).unwrap(), 3);
    }

    #[test]
    fn counts_what_the_peer_has_no_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&stream).unwrap(), 0);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged(&stream).unwrap() > 0);
    }

    #[test]
    fn a_socket_is_known_again_by_its_cookie() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let again = stream.try_clone().unwrap();
        let own = cookie(&stream).unwrap();
        assert_eq!(cookie(&again).unwrap(), own);
        assert_ne!(cookie(&peer).unwrap(), own);
        assert!(cookie(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn an_end_is_told_though_another_descriptor_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (stream, listener.accept().unwrap().0)
        };
        let (stream, mut peer) = pair();
        let _parked = stream.try_clone().unwrap();
        disconnect(&stream).unwrap();
        drop(stream);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let (mut stream, mut peer) = pair();
        let _parked = stream.try_clone().unwrap();
        stream.write_all(b"last").unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        drop(stream);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last");
    }

    #[test]
    fn one_has_hung_up_when_both_ways_have_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert!(!has_hung_up(&stream));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        assert!(!has_hung_up(&stream) && !has_hung_up(&peer));
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(has_hung_up(&peer));
    }

    #[test]
    fn who_has_made_a_unix_socket_is_known_and_nobody_else() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        assert_eq!(peer_user(&ours).unwrap(), user);
        assert_eq!(peer_user(&theirs).unwrap(), user);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(peer_user(&listener).is_err());
    }
}
