//! The configuration: any text is taken or refused with a place and words, alike each time.
#![no_main]

use evenkeel::config::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match (read("f", text), read("f", text)) {
        (Ok(config), Ok(again)) => assert_eq!(config, again),
        (Err(mistakes), Err(again)) => {
            let said = mistakes.to_string();
            assert_eq!(said, again.to_string());
            assert!(said.starts_with("f:"), "{said}");
            // What is shown in a terminal must not steer it.
            assert!(
                !said.contains(|c: char| c.is_control() && c != '\n'),
                "{said:?}"
            );
        }
        (one, other) => panic!("{one:?} and then {other:?}"),
    }
});
