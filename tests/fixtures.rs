//! What a hub of today leaves on its disk and in its Redis, and what hubs before it left, opened by the code at hand.
//!
//! `tests/fixtures/data` is a data folder and `tests/fixtures/redis` a dump, each beside what a hub that was started on it
//! answered then (`observed.json`) and what its users had (`facts.json`). They stay as they are, so that every later hub
//! shows that it still reads them; `MAKE_FIXTURES=1 cargo test --locked --test hub fixtures::` makes them anew. Before a change of
//! what is stored, a copy is set aside: `data_1` has `store.db` of version 1, `redis_2` the keys of version 2.

mod content;
mod dump;
mod facts;
mod folder;
mod observed;
mod visitor;
