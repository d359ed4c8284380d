//! Everything that is tested through a public door: one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
mod bad_input;
mod broker;
mod cli;
mod clients;
mod clock;
mod cluster;
mod containers;
mod crash;
mod demo;
mod disk;
mod docs;
mod documents;
mod drain;
mod endings;
mod example;
mod fixtures;
mod floors;
mod front;
mod golden;
mod instances;
mod latest;
mod limits;
mod odd_payloads;
mod producers;
mod projections;
mod proto;
mod proxy;
mod publishers;
mod restore;
mod seam;
mod seats;
mod series;
mod socket;
mod socket_access;
mod sources;
mod store;
mod stream_tickets;
mod streams;
mod support;
mod tokens;
mod transcript;
mod unread;
