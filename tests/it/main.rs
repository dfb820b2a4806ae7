//! Black-box tests: the real program between scripted peers, one topic a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "a test binary has no public items")]

mod abuse;
mod addresses;
mod admin_socket;
mod affinity;
mod api;
mod balancing;
mod client;
mod clients;
mod config;
mod dashboard;
mod demo;
mod demo_page;
mod discovery;
mod doctor;
mod door;
mod drain;
mod events;
mod faults;
mod fleet;
mod grpc_streams;
mod handover_format;
mod harness;
mod health;
mod health_services;

mod heritage;
mod keeper;
mod limits;
mod listing;
mod metrics;
mod monitoring;
mod outlier;
mod process;
mod proxy_protocol;
mod queue;
mod ramp;
mod ready;
mod relay;
mod reload;
mod servers;
mod sni;
mod survival;
mod syscalls;
mod systemd;
mod tcp_options;
mod timeouts;
mod traps;
mod units;
mod upgrade;
mod upgrade_config;
mod upgrade_failures;
mod upgrade_sessions;
mod upgrade_while;
mod workers;
