//! Projections: JSON made of derived values and newest events, as the configuration shapes it.

mod buckets;
mod config;
mod gathering;
mod plan;
mod shape;
mod take;

pub use self::{
    buckets::{Hours, HoursError},
    config::{Config, Freshness, Path, PathError, Settings},
    plan::{Fault, Plan, Projection},
};
