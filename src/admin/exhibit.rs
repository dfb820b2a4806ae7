//! What a demonstration adds to the API and to the page: whoever runs one implements [`Exhibit`].

use std::fmt;

use serde_json::Value;

use super::request::Refusal;

/// A demonstration: servers that can be killed and slowed, and a load.
pub trait Exhibit: fmt::Debug + Send + Sync {
    /// What it shows now: the body of `GET /api/v1/demo`.
    fn show(&self) -> Value;

    /// Takes the body of `PATCH /api/v1/demo`. Must not block for long: it runs on the admin thread.
    ///
    /// # Errors
    /// Where it asks for something that is not there, or out of range.
    fn change(&self, wish: &Value) -> Result<(), Refusal>;
}
