//! `GET /api/v1/connections`: who is connected, and how far behind.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{AppState, Caller, Problem};
use crate::session::ConnectionInfo;

#[derive(Serialize)]
pub(super) struct Answer {
    connections: Vec<ConnectionInfo>,
}

/// For admins: it tells names and addresses of others.
pub(super) async fn connections(
    State(state): State<AppState>,
    Caller(principal): Caller,
) -> Result<Json<Answer>, Problem> {
    if !principal.admin {
        return Err(Problem::forbidden(&["admin".to_owned()]));
    }
    Ok(Json(Answer { connections: state.connections.list(state.hub.head().offset) }))
}
