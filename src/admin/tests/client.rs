//! The client and the thread together.

use serde_json::json;

use super::harness::Site;
use crate::admin::client::{Client, ClientError, segment};
use crate::admin::request::{Done, Refusal};

#[test]
fn the_client_understands_the_thread() {
    let site = Site::answering(|ask, _| match ask {
        crate::admin::request::Ask::Confirm => {
            Err(Refusal::Conflict("nothing awaits confirmation".into()))
        }
        _ => Ok(Done::Changed),
    });
    let client = Client::new(&site.socket());
    let status = client.call("GET", "/api/v1/status", None).unwrap();
    let pools: Vec<_> = status["pools"].as_object().unwrap().keys().collect();
    assert_eq!(pools, ["web", "db"]);
    let path = format!("/api/v1/pools/db/servers/{}", segment("127.0.0.1:9003"));
    let server = client
        .call("PATCH", &path, Some(&json!({"weight": 3})))
        .unwrap();
    assert_eq!(server["name"], "127.0.0.1:9003");
    let deleted = client.call("DELETE", &path, None).unwrap();
    assert!(deleted.is_null());
    assert!(client.call_slow("POST", "/api/v1/reload", None).is_ok());
    match client.call("POST", "/api/v1/confirm", None).unwrap_err() {
        ClientError::Refused { status, text } => {
            assert_eq!((status, &*text), (409, "nothing awaits confirmation"));
        }
        other => panic!("{other:?}"),
    }
    let page = client.call("GET", "/healthz", None).unwrap();
    assert_eq!(page, "ok\n");
}
