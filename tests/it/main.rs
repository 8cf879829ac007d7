//! The integration tests: one binary that drives the real `pack`.
//!
//! Test support and tests only. Every module says what it holds; `support` has the project fixture. The
//! archives that unit tests spoil are spoiled here with the same code.

#![allow(clippy::disallowed_methods, reason = "effects: tests own folders, processes and sockets")]

// The shared writer of test archives names these two through the crate's root.
use pack::{digest, path};

#[allow(dead_code, missing_docs, reason = "unit tests use the rest of it")]
#[path = "../../src/archive/testing.rs"]
mod archives;
#[path = "../support/hub.rs"]
mod hub_server;
#[path = "../support/server.rs"]
mod server;
#[allow(dead_code, missing_docs, reason = "unit tests use the rest of it")]
#[path = "../../src/weights/testing.rs"]
mod weights;

mod attest;
mod bundle;
mod diff;
mod engines;
mod fuzz;
mod golden;
mod hub;
mod inputs;
mod judged;
mod olah;
mod qlora;
mod recognise;
mod refusals;
mod reproducible;
mod schema;
mod sealed;
mod support;
mod verdict;
