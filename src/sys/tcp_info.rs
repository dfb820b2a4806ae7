//! What the kernel tells of a TCP socket's way to its peer.
//!
//! The structure grows at its end with new kernels (linux/tcp.h), and the kernel says how much of it
//! it has filled. All that is asked for here are its 32-bit words and a few bytes before them, so it
//! is read as words: what an older kernel does not give is `None`, not zero.
#![allow(unsafe_code, reason = "sys is where unsafe code lives")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Up to and with `tcpi_snd_wnd` (Linux 5.4).
const WORDS: usize = 58;
const BYTES: u32 = 4 * 58;
const _: () = assert!(BYTES as usize == WORDS * size_of::<u32>());
/// `tcpi_state`, `tcpi_ca_state`, `tcpi_retransmits`, `tcpi_probes`, a byte each.
const STATES: usize = 0;
const SND_MSS: usize = 4;
const LOST: usize = 8;
const RETRANS: usize = 9;
const LAST_DATA_RECV: usize = 13;
const RTT: usize = 17;
const TOTAL_RETRANS: usize = 25;
/// 64 bits each, as two words.
const BYTES_ACKED: usize = 30;
const BYTES_RECEIVED: usize = 32;
const NOTSENT_BYTES: usize = 36;
const SND_WND: usize = WORDS - 1;

/// Of net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSED: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// What is known of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// There is no way to the peer any more: it has reset, or both have ended.
    pub is_closed: bool,
    /// Smoothed.
    pub round_trip: Duration,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Whether segments are taken for lost, or were sent again and await their acknowledgement.
    pub is_losing: bool,
    /// Bytes written and not sent yet; `None` before Linux 4.6.
    pub unsent_bytes: Option<u32>,
    /// Bytes that the peer lets be on their way, as it said last; `None` before Linux 5.4.
    pub window_bytes: Option<u32>,
    /// The largest segment.
    pub segment_bytes: u32,
    /// Since the peer's last byte came, or since the handshake; milliseconds, as coarse as a tick.
    pub silent: Duration,
}

/// What has gone over a socket since its connection began, in the kernel's sequence numbers: FIN counts
/// as a byte, either way, and so does the SYN of whoever has connected (but not that of whoever has
/// accepted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whether the peer's FIN has come; it is in `received`.
    pub has_fin: bool,
    /// Whether ours was written; it is in what is acknowledged or on its way.
    pub has_sent_fin: bool,
    /// Acknowledged by the peer.
    pub acknowledged: u64,
    /// Received in order, whether read or not.
    pub received: u64,
}

/// `getsockopt(TCP_INFO)`: what the kernel knows of the way to the peer.
///
/// # Errors
/// EOPNOTSUPP for what is no TCP socket.
pub fn path(socket: impl AsFd) -> io::Result<TcpInfo> {
    let (words, count) = ask(socket)?;
    Ok(read(&words[..count]))
}

/// `getsockopt(TCP_INFO)`: what has gone over a socket; `None` where that cannot be said, because it is
/// not connected any more or not yet, or before Linux 4.1.
///
/// # Errors
/// EOPNOTSUPP for what is no TCP socket.
pub fn traffic(socket: impl AsFd) -> io::Result<Option<Traffic>> {
    let (words, count) = ask(socket)?;
    Ok(read_traffic(&words[..count]))
}

fn ask(socket: impl AsFd) -> io::Result<([u32; WORDS], usize)> {
    let mut words = [0_u32; WORDS];
    let mut length: libc::socklen_t = BYTES;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `words`, any content of
    // which is valid, and sets `length` to how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    super::check(i64::from(result))?;
    Ok((words, length as usize / size_of::<u32>()))
}

fn read_traffic(words: &[u32]) -> Option<Traffic> {
    let [state, ..] = words.get(STATES)?.to_ne_bytes();
    let (has_fin, has_sent_fin) = match state {
        ESTABLISHED => (false, false),
        FIN_WAIT1 | FIN_WAIT2 => (false, true),
        CLOSE_WAIT => (true, false),
        LAST_ACK | CLOSING => (true, true),
        // Closed by two FINs or by RST, which looks the same; or not connected.
        _ => return None,
    };
    let long = |place: usize| {
        let [first, second] = *words.get(place..place + 2)?.first_chunk()?;
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    };
    Some(Traffic {
        has_fin,
        has_sent_fin,
        acknowledged: long(BYTES_ACKED)?,
        received: long(BYTES_RECEIVED)?,
    })
}

fn read(words: &[u32]) -> TcpInfo {
    let word = |place: usize| words.get(place).copied();
    let known = |place| word(place).unwrap_or(0);
    let [state, _, retransmits, _] = known(STATES).to_ne_bytes();
    TcpInfo {
        is_closed: state == CLOSED,
        round_trip: Duration::from_micros(known(RTT).into()),
        retransmits: known(TOTAL_RETRANS),
        is_losing: retransmits > 0 || known(LOST) > 0 || known(RETRANS) > 0,
        unsent_bytes: word(NOTSENT_BYTES),
        window_bytes: word(SND_WND),
        segment_bytes: known(SND_MSS),
        silent: Duration::from_millis(known(LAST_DATA_RECV).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    #[test]
    fn a_quick_way_without_loss() {
        let (mut stream, mut peer) = pair();
        stream.write_all(b"hello").unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
        let info = path(&stream).unwrap();
        assert!(!info.round_trip.is_zero() && info.round_trip < Duration::from_secs(1));
        assert_eq!((info.retransmits, info.is_losing), (0, false));
        assert!(info.segment_bytes >= 500, "{info:?}");
        assert!(info.window_bytes.is_some_and(|bytes| bytes > 1000));
    }

    #[test]
    fn what_the_peer_has_no_room_for_is_unsent() {
        let (mut stream, _peer) = pair();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        assert!(path(&stream).unwrap().unsent_bytes.unwrap() > 0);
    }

    #[test]
    fn a_peer_that_has_reset_leaves_no_way_though_bytes_stay_unacknowledged() {
        let (mut stream, peer) = pair();
        assert!(!path(&stream).unwrap().is_closed);
        drop(peer);
        stream.write_all(&[0; 31]).unwrap();
        // The end of the peer comes first, its answer to the bytes then.
        while stream.take_error().unwrap().is_none() {
            std::thread::yield_now();
        }
        assert!(path(&stream).unwrap().is_closed);
        assert_eq!(crate::sys::socket::unacknowledged(&stream).unwrap(), 31);
    }

    #[test]
    fn an_older_kernel_s_answer_is_shorter() {
        // As Linux 4.4 gives it: 104 bytes and the 64-bit counts up to `tcpi_segs_in`.
        let mut words = [0; NOTSENT_BYTES];
        words[RTT] = 1500;
        let info = read(&words);
        assert_eq!(info.round_trip, Duration::from_micros(1500));
        assert_eq!((info.unsent_bytes, info.window_bytes), (None, None));
    }

    #[test]
    fn a_segment_that_is_sent_again_is_a_loss() {
        let words = |place: usize, value: u32| {
            let mut words = [0; WORDS];
            words[place] = value;
            read(&words)
        };
        assert!(!words(SND_MSS, 1448).is_losing);
        let retransmits = u32::from_ne_bytes([1, 0, 2, 0]);
        let probes = u32::from_ne_bytes([1, 0, 0, 2]);
        assert!(words(STATES, retransmits).is_losing && !words(STATES, probes).is_losing);
        assert!(words(LOST, 1).is_losing && words(RETRANS, 1).is_losing);
    }

    /// Until both ends have heard all that was said.
    fn settled(socket: &TcpStream, wanted: impl Fn(&Traffic) -> bool) -> Traffic {
        loop {
            if let Some(found) = traffic(socket).unwrap().filter(&wanted) {
                return found;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn syn_counts_for_who_connects_and_fin_for_both() {
        let (mut active, mut passive) = pair();
        active.write_all(&[0; 10]).unwrap();
        passive.write_all(&[0; 7]).unwrap();
        let sent = settled(&active, |it| it.acknowledged == 1 + 10 && it.received == 7);
        assert!(!sent.has_fin && !sent.has_sent_fin);
        settled(&passive, |it| it.acknowledged == 7 && it.received == 10);
        passive.read_exact(&mut [0; 10]).unwrap();
        // What is read stays received.
        settled(&passive, |it| it.received == 10);
        active.shutdown(std::net::Shutdown::Write).unwrap();
        let half = settled(&active, |it| it.acknowledged == 1 + 10 + 1);
        assert!(half.has_sent_fin && !half.has_fin);
        let half = settled(&passive, |it| it.received == 10 + 1);
        assert!(half.has_fin && !half.has_sent_fin);
        assert_eq!(passive.read(&mut [0]).unwrap(), 0);
        assert_eq!(traffic(&passive).unwrap(), Some(half));
        passive.shutdown(std::net::Shutdown::Write).unwrap();
        while traffic(&passive).unwrap().is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_not_connected_or_too_short_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(traffic(&listener).unwrap(), None);
        assert_eq!(read_traffic(&[]), None);
        let words = [u32::from_ne_bytes([ESTABLISHED, 0, 0, 0]); BYTES_RECEIVED + 1];
        assert_eq!(read_traffic(&words), None);
    }
}
