//! Single values: a text becomes a number, a duration, a name, a word of a list; or a [`Wrong`] that
//! says which values there are.
//!
//! Each function knows one kind of value and no key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::file::ReadyWhen;
use super::mistake::{Wrong, nearest, plain, quoted, write_one_of};
use super::{AccessLog, AdminSocket, LogFormat, OnDown, elsewhere};
use crate::balance::Algorithm;
use crate::units::{parse_duration, show_duration};

/// Longer than any real timeout, and far from where adding to a clock could overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);

/// A weight of 0 takes no new connection.
pub const WEIGHT_MAX: u32 = 256;

/// In bytes; names go into logs, metrics and URLs.
pub const NAME_BYTES_MAX: usize = 128;

/// `sun_path` has 108 bytes, and the last one is a NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What DNS allows, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// A whole number within a range.
pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, Wrong>
where
    T: FromStr + PartialOrd + Display,
{
    let (least, most) = (range.start(), range.end());
    // `parse` takes a sign, which no key wants.
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let remedy = || format!("write one from {least} to {most}");
    if !is_digits {
        return Err(Wrong::new(
            format!("{} is not a whole number", quoted(text)),
            remedy(),
        ));
    }
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| Wrong::new(format!("{} is out of range", quoted(text)), remedy()))
}

/// A server's share against the others; 0 is none.
pub(super) fn weight(text: &str) -> Result<u32, Wrong> {
    number(text, 0..=WEIGHT_MAX)
}

/// `None` for a word such as `auto` or `off`, else what `read` makes of the text.
pub(super) fn word_or<T>(
    word: &str,
    text: &str,
    read: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Result<Option<T>, Wrong> {
    if text == word {
        return Ok(None);
    }
    read(text).map(Some).map_err(|wrong| wrong.or_write(word))
}

/// A duration that may be zero.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let duration = parse_duration(text).map_err(|error| {
        Wrong::new(
            format!("{} is not a duration", quoted(text)),
            error.to_string(),
        )
    })?;
    if duration > DURATION_MAX {
        let what = format!("{} is too long", quoted(text));
        let remedy = format!("write at most {}", show_duration(DURATION_MAX));
        return Err(Wrong::new(what, remedy));
    }
    Ok(duration)
}

/// A duration to wait for something: zero would never let it happen.
pub(super) fn timeout(text: &str) -> Result<Duration, Wrong> {
    duration_from(Duration::from_millis(1), text)
}

/// Time between two checks; more often than a hundred times a second is load, not a check.
pub(super) fn interval(text: &str) -> Result<Duration, Wrong> {
    duration_from(Duration::from_millis(10), text)
}

/// A duration of at least `least`.
pub(super) fn duration_from(least: Duration, text: &str) -> Result<Duration, Wrong> {
    let duration = duration(text)?;
    if duration < least {
        let what = format!("{} is too short", quoted(text));
        let remedy = format!("write at least {}", show_duration(least));
        return Err(Wrong::new(what, remedy));
    }
    Ok(duration)
}

/// A factor of at least 1.
pub(super) fn factor(text: &str) -> Result<f64, Wrong> {
    const MOST: f64 = 1000.0;
    let factor = text
        .parse()
        .ok()
        .filter(|factor| (1.0..=MOST).contains(factor));
    factor.ok_or_else(|| {
        let what = format!("{} is not a number from 1 to {MOST}", quoted(text));
        Wrong::new(what, "write one such as 1.25")
    })
}

/// True or false, as YAML 1.2 has them.
pub(super) fn truth(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let what = format!("{} is neither true nor false", quoted(text));
            Err(Wrong::new(what, "write true or false"))
        }
    }
}

/// Whether `text` may be the name of a listener, a pool or a server.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(may_be_in_a_name)
}

/// Colons and brackets, because a server's name may be an address.
fn may_be_in_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || ".-_:[]".contains(character)
}

/// The name of a listener, a pool or a server.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let remedy = "write letters, digits, dots, dashes and underscores";
    if text.is_empty() {
        return Err(Wrong::new("the name is empty", remedy));
    }
    if text.len() > NAME_BYTES_MAX {
        let what = format!("the name has {} bytes", text.len());
        return Err(Wrong::new(what, format!("write at most {NAME_BYTES_MAX}")));
    }
    match text.chars().find(|character| !may_be_in_a_name(*character)) {
        None => Ok(text.to_owned()),
        Some(bad) => {
            let what = format!(
                "the name {} has {} in it",
                quoted(text),
                quoted(&bad.to_string())
            );
            Err(Wrong::new(what, remedy))
        }
    }
}

/// The name of a pool that is defined elsewhere.
pub(super) fn reference(text: &str) -> Result<String, Wrong> {
    Ok(text.to_owned())
}

/// How a server is picked.
pub(super) fn algorithm(text: &str) -> Result<Algorithm, Wrong> {
    text.parse().map_err(|_| {
        let names: Vec<_> = Algorithm::ALL.iter().map(|each| each.name()).collect();
        unknown_word(text, "an algorithm", &names)
    })
}

/// Which pools count, where none is named.
pub(super) fn ready_when(text: &str) -> Result<ReadyWhen, Wrong> {
    match text {
        "all_pools" => Ok(ReadyWhen::AllPools),
        "any_pool" => Ok(ReadyWhen::AnyPool),
        _ => {
            let what = format!("{} is neither all_pools nor any_pool", quoted(text));
            let remedy = match nearest(text, ["all_pools", "any_pool"].into_iter()) {
                Some(word) => format!("write {word}"),
                None => "write one of them, or a list of pools such as [web]".to_owned(),
            };
            Err(Wrong::new(what, remedy))
        }
    }
}

/// The least urgent level of the process log.
pub(super) fn level(text: &str) -> Result<LevelFilter, Wrong> {
    let levels = LevelFilter::iter().map(|level| (level.as_str().to_ascii_lowercase(), level));
    let levels: Vec<_> = levels.collect();
    let found = levels.iter().find(|(name, _)| name == text);
    found.map(|(_, level)| *level).ok_or_else(|| {
        let names: Vec<_> = levels.iter().map(|(name, _)| name.as_str()).collect();
        unknown_word(text, "a level", &names)
    })
}

/// Where access lines go.
pub(super) fn access(text: &str) -> Result<AccessLog, Wrong> {
    match text {
        "stdout" => Ok(AccessLog::Stdout),
        "stderr" => Ok(AccessLog::Stderr),
        "off" => Ok(AccessLog::Off),
        _ if is_path(text) => file_path(text, "access.log").map(AccessLog::File),
        _ => {
            let what = format!("{} is neither a place nor a path", quoted(text));
            let remedy = match nearest(text, ["stdout", "stderr", "off"].into_iter()) {
                Some(word) => format!("write {word}"),
                None => "write stdout, stderr, off or a path such as ./access.log".to_owned(),
            };
            Err(Wrong::new(what, remedy))
        }
    }
}

/// A path has a slash or a dot in it, so that a misspelt word is not taken for one.
pub(super) fn is_path(text: &str) -> bool {
    text.contains(['/', '.'])
}

/// The path of a file; `example` is what one in the directory may be called.
pub(super) fn file_path(text: &str, example: &str) -> Result<PathBuf, Wrong> {
    if text.contains('\0') {
        return Err(Wrong::new("the path has a NUL in it", "remove it"));
    }
    if text.ends_with('/') {
        let what = format!("{} is a directory", quoted(text));
        let remedy = format!("write the path of a file, such as {}{example}", plain(text));
        return Err(Wrong::new(what, remedy));
    }
    Ok(PathBuf::from(text))
}

/// The file that holds the token.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    if is_path(text) {
        return file_path(text, "token");
    }
    let what = format!("{} is not a path", quoted(text));
    Err(Wrong::new(
        what,
        "write one such as ./token, or remove the key",
    ))
}

/// Where the admin socket appears.
pub(super) fn socket(text: &str) -> Result<AdminSocket, Wrong> {
    if text == "off" {
        return Ok(AdminSocket::Off);
    }
    if !is_path(text) {
        let what = format!("{} is neither off nor a path", quoted(text));
        return Err(Wrong::new(what, "write off or a path such as ./admin.sock"));
    }
    let path = file_path(text, "admin.sock")?;
    if text.len() > SOCKET_PATH_BYTES_MAX {
        let what = format!("the path has {} bytes", text.len());
        let remedy = format!("write at most {SOCKET_PATH_BYTES_MAX}, the kernel takes no more");
        return Err(Wrong::new(what, remedy));
    }
    Ok(AdminSocket::At(path))
}

/// A host's name, or an IPv4 address, as a browser sends it: case makes no difference.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    const REMEDY: &str = "write a plain name such as evenkeel.example.com";
    if text.is_empty() {
        return Err(Wrong::new("the name is empty", REMEDY));
    }
    if text.len() > HOST_BYTES_MAX {
        let what = format!("the name has {} bytes", text.len());
        return Err(Wrong::new(what, format!("write at most {HOST_BYTES_MAX}")));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let scheme = format!("{scheme}://");
        let what = format!("{} begins with {}", quoted(text), quoted(&scheme));
        return Err(Wrong::new(what, REMEDY));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && !name.contains(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        let what = format!("{} has a port", quoted(text));
        return Err(Wrong::new(
            what,
            "write the name without it, any port will do",
        ));
    }
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if text.starts_with(['.', '-']) || !text.chars().all(is_good) {
        return Err(Wrong::new(
            format!("{} is not a host's name", quoted(text)),
            REMEDY,
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// What happens to the connections of a server that goes down.
pub(super) fn on_down(text: &str) -> Result<OnDown, Wrong> {
    match text {
        "keep" => Ok(OnDown::Keep),
        "close" => Ok(OnDown::Close),
        _ => {
            let what = format!("{} is neither keep nor close", quoted(text));
            Err(Wrong::new(what, "write keep or close"))
        }
    }
}

/// How an access line looks.
pub(super) fn format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(unknown_word(text, "a format", &["text", "json"])),
    }
}

/// A text of printable ASCII without blanks: it goes into an HTTP request as it stands.
pub(super) fn http_word(text: &str, bytes_max: usize) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > bytes_max {
        let what = format!("this has {} bytes", text.len());
        return Err(Wrong::new(what, format!("write 1 to {bytes_max}")));
    }
    match text.chars().find(|character| !character.is_ascii_graphic()) {
        None => Ok(text.to_owned()),
        Some(bad) => {
            let what = format!("{} has {} in it", quoted(text), quoted(&bad.to_string()));
            Err(Wrong::new(what, "write printable ASCII without blanks"))
        }
    }
}

/// The path of an HTTP request.
pub(super) fn http_path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        let what = format!("the path {} does not begin with /", quoted(text));
        return Err(Wrong::new(what, "write one such as /health"));
    }
    if text.starts_with("//") {
        let what = format!("the path {} begins with //", quoted(text));
        return Err(Wrong::new(
            what,
            "write one such as /health, the host goes into host",
        ));
    }
    http_word(text, 1024)
}

/// Bytes that are sent or looked for.
pub(super) fn content(text: &str) -> Result<String, Wrong> {
    const BYTES_MAX: usize = 4096;
    if text.is_empty() || text.len() > BYTES_MAX {
        let what = format!("this has {} bytes", text.len());
        return Err(Wrong::new(
            what,
            format!("write 1 to {BYTES_MAX} or remove the key"),
        ));
    }
    Ok(text.to_owned())
}

/// HTTP status codes and ranges of them, separated by commas.
pub(super) fn status_list(text: &str) -> Result<Vec<RangeInclusive<u16>>, Wrong> {
    text.split(',')
        .map(|part| status_range(part.trim()))
        .collect()
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| number(text, 100..=599).ok();
    match (code(first.trim()), code(last.trim())) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => {
            let what = format!(
                "{} is neither a status from 100 to 599 nor a range",
                quoted(text)
            );
            Err(Wrong::new(what, "write some such as 200-299,304"))
        }
    }
}

/// A word that is none of those that are known.
pub(super) fn unknown_word(text: &str, kind: &str, names: &[&str]) -> Wrong {
    let what = format!("{} is not {kind}", quoted(text));
    let remedy = match elsewhere::word(text, names) {
        Some(name) => format!("write {name}"),
        None => write_one_of(text, names),
    };
    Wrong::new(what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_and_in_range() {
        assert_eq!(number("0", 0..=256), Ok(0_u32));
        assert_eq!(number("256", 0..=256), Ok(256_u32));
        for text in [
            "",
            "257",
            "-1",
            "+1",
            "1.0",
            "1e2",
            "0x10",
            " 1",
            "99999999999999999999",
        ] {
            assert!(number::<u32>(text, 0..=256).is_err(), "{text}");
        }
    }

    #[test]
    fn factors_are_finite_and_at_least_one() {
        assert_eq!(factor("1"), Ok(1.0));
        assert_eq!(factor("1.25"), Ok(1.25));
        for text in ["0.99", "NaN", "inf", "-2", "1001", "", "x"] {
            assert!(factor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn status_lists_hold_codes_and_ranges() {
        assert_eq!(status_list("200"), Ok(vec![200..=200]));
        assert_eq!(status_list("200-299, 304"), Ok(vec![200..=299, 304..=304]));
        for text in ["", "99", "600", "299-200", "200,", "2xx", "200-", "-200"] {
            assert!(status_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_fit_logs_and_urls() {
        assert_eq!(name("db-1.eu_west").as_deref(), Ok("db-1.eu_west"));
        assert_eq!(name("[::1]:80").as_deref(), Ok("[::1]:80"));
        for text in ["", "a b", "a/b", "a\n", "\u{e9}", &"x".repeat(129)] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_place_is_not_a_file() {
        assert_eq!(access("stdout"), Ok(AccessLog::Stdout));
        assert_eq!(access("./stdot"), Ok(AccessLog::File("./stdot".into())));
        assert!(access("stdot").is_err());
        assert!(access("/var/log/").is_err());
    }

    #[test]
    fn hosts_are_plain_names() {
        for (text, read) in [
            ("LB.Example.com", "lb.example.com"),
            ("10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(read));
        }
        let long = "x".repeat(254);
        for text in [
            "", &long, "a b", "a:80", "[::1]", "::1", "http://a", "*.a", ".a", "a/b",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_s_path_fits_the_kernel() {
        assert_eq!(socket("off"), Ok(AdminSocket::Off));
        let longest = format!("./{}", "x".repeat(105));
        assert_eq!(
            socket(&longest),
            Ok(AdminSocket::At(longest.clone().into()))
        );
        for text in ["", "on", "/run/", "./a\0b", &format!("{longest}x")] {
            assert!(socket(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timeouts_are_at_least_a_millisecond() {
        assert!(duration("0s").is_ok());
        assert!(timeout("0s").is_err());
        assert!(timeout("1ms").is_ok());
        assert!(interval("9ms").is_err());
        assert!(timeout("366d").is_err());
    }
}
