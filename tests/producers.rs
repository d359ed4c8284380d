//! Programs that were written for other servers, as they are, against a real hub.

mod locanext;
mod timetracker;
