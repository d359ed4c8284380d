//! Everything that is tested through a public door: one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod broker;
mod store;
mod support;
mod tokens;
