//! The page at `/`.

/// One document with everything in it.
pub(super) fn page() -> &'static str {
    "<!doctype html><title>evenkeel</title>\n"
}
