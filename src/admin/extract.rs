//! What handlers take out of a request: names from the path, options from the query, a wish from the
//! body. What cannot be read is answered with a text that says why, as JSON.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::fault::Fault;

/// Parts of the path, percent-decoded.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names))
            .map_err(|error| Fault::invalid(error.body_text()))
    }
}

/// Options of the query.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(options)| Self(options))
            .map_err(|error| Fault::invalid(error.body_text()))
    }
}

/// A JSON object in the body.
pub(super) struct Wish<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Wish<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = body(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return Err(Fault::invalid("the body is empty: send a JSON object"));
        }
        read(&bytes).map(Self)
    }
}

/// The same where an empty body asks for nothing in particular.
pub(super) struct OptionalWish<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalWish<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = body(request, state).await?;
        match bytes.trim_ascii().is_empty() {
            true => Ok(Self(T::default())),
            false => read(&bytes).map(Self),
        }
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Fault> {
    // It was read before, within its bounds.
    let bytes = Bytes::from_request(request, state).await;
    bytes.map_err(|error| Fault::invalid(error.body_text()))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    // serde would also fill a struct from a list.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Fault::invalid("the body is no JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Fault::invalid(format!("body: {error}")))
}
