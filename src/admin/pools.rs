//! Pools and their servers: shown from the roster, changed by the process.
//!
//! A change is answered with the state after it. The process publishes that before it answers, so
//! that the roster read here has it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

use super::client::segment;
use super::desk::Desk;
use super::extract::{Asked, Named, Wish};
use super::fault::Fault;
use super::request::{Ask, ServerName};
use super::routes::AtDesk;
use super::wishes::{NewServerWish, PaceWish, PoolWish, ServerWish};
use super::{reply, status};
use crate::clock::Now;
use crate::pool::drain::Pace;

pub(super) async fn pool(
    State(desk): AtDesk,
    Named(pool): Named<String>,
) -> Result<Response, Fault> {
    show_pool(&desk, &pool)
}

pub(super) async fn change_pool(
    State(desk): AtDesk,
    Named(pool): Named<String>,
    Wish(wish): Wish<PoolWish>,
) -> Result<Response, Fault> {
    let algorithm = wish.algorithm()?;
    find_pool(&desk, &pool)?;
    let ask = Ask::ChangeAlgorithm {
        pool: pool.clone(),
        algorithm,
    };
    desk.ask(ask).await?;
    show_pool(&desk, &pool)
}

pub(super) async fn server(
    State(desk): AtDesk,
    Named((pool, server)): Named<(String, String)>,
) -> Result<Response, Fault> {
    show_server(&desk, StatusCode::OK, &ServerName { pool, server })
}

pub(super) async fn add_server(
    State(desk): AtDesk,
    Named(pool): Named<String>,
    Wish(wish): Wish<NewServerWish>,
) -> Result<Response, Fault> {
    let server = wish.server()?;
    find_pool(&desk, &pool)?;
    // As the config does: an address is a good name.
    let address = server.address.to_string();
    let name = ServerName {
        pool: pool.clone(),
        server: server.name.clone().unwrap_or(address),
    };
    desk.ask(Ask::AddServer { pool, server }).await?;
    let mut response = show_server(&desk, StatusCode::CREATED, &name)?;
    let (pool, server) = (segment(&name.pool), segment(&name.server));
    let place = format!("/api/v1/pools/{pool}/servers/{server}").parse();
    let place = place.expect("percent-encoded names are ASCII without controls");
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

pub(super) async fn change_server(
    State(desk): AtDesk,
    Named((pool, server)): Named<(String, String)>,
    Wish(wish): Wish<ServerWish>,
) -> Result<Response, Fault> {
    let change = wish.change()?;
    let name = ServerName { pool, server };
    find_server(&desk, &name)?;
    desk.ask(Ask::ChangeServer(name.clone(), change)).await?;
    show_server(&desk, StatusCode::OK, &name)
}

pub(super) async fn remove_server(
    State(desk): AtDesk,
    Named((pool, server)): Named<(String, String)>,
    Asked(wish): Asked<PaceWish>,
) -> Result<Response, Fault> {
    let pace = wish.pace(Pace::PATIENT)?;
    let name = ServerName { pool, server };
    find_server(&desk, &name)?;
    desk.ask(Ask::RemoveServer(name, pace)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Also before a change is asked for: what is not there need not wait for the process.
fn find_pool(desk: &Desk, pool: &str) -> Result<(), Fault> {
    match desk.roster().pool(pool) {
        Some(_) => Ok(()),
        None => Err(no_pool(pool)),
    }
}

fn find_server(desk: &Desk, name: &ServerName) -> Result<(), Fault> {
    find_pool(desk, &name.pool)?;
    match desk.roster().server(&name.pool, &name.server) {
        Some(_) => Ok(()),
        None => Err(no_server(name)),
    }
}

fn show_pool(desk: &Desk, name: &str) -> Result<Response, Fault> {
    let roster = desk.roster();
    let pool = roster.pool(name).ok_or_else(|| no_pool(name))?;
    let shown = status::NamedPool::new(pool, Now::read());
    Ok(reply::json(StatusCode::OK, &shown))
}

fn show_server(desk: &Desk, status: StatusCode, name: &ServerName) -> Result<Response, Fault> {
    let roster = desk.roster();
    roster.pool(&name.pool).ok_or_else(|| no_pool(&name.pool))?;
    let found = roster.server(&name.pool, &name.server);
    let (pool, server) = found.ok_or_else(|| no_server(name))?;
    let shown = status::NamedServer::new(pool, server, Now::read());
    Ok(reply::json(status, &shown))
}

fn no_pool(pool: &str) -> Fault {
    Fault::not_found(format!("there is no pool {pool}"))
}

fn no_server(name: &ServerName) -> Fault {
    let ServerName { pool, server } = name;
    Fault::not_found(format!("there is no server {server} in pool {pool}"))
}
