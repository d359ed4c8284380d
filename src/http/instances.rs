//! `/api/v1/instances`: the registry; and for admins, keys for instances and removing them.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    AppState, Caller, Problem, answers,
    paging::{self, PageStart},
    query::{PageLimit, Parsed, Query, Several},
    query_limit,
};
use crate::{
    auth::Principal,
    event::{AppName, InstanceId},
    instances::{InstanceRecord, InstanceState, Instances},
    time::rfc3339,
    topic::TopicPattern,
};

#[derive(Serialize)]
struct InstancesPage {
    instances: Vec<InstanceRecord>,
    /// How many match, by state, on all pages.
    counts: BTreeMap<InstanceState, usize>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<PageStart<SortKey>>,
}

/// What was asked for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct InstancesQuery {
    app: Option<AppName>,
    state: Several<StateName>,
    /// Stands somewhere in the id, version or host.
    q: String,
    sort: Parsed<SortOrder>,
    after: Option<PageStart<SortKey>>,
    limit: PageLimit,
}

/// A state by its name.
struct StateName(InstanceState);

/// What they are sorted by, and whether backwards.
#[derive(Clone, Copy)]
struct SortOrder {
    by: Sort,
    is_descending: bool,
}

/// What they are sorted by.
#[derive(Clone, Copy)]
enum Sort {
    App,
    State,
    Version,
    Host,
    FirstSeen,
    LastSeen,
}

const SORTS: [(&str, Sort); 6] = [
    ("app", Sort::App),
    ("state", Sort::State),
    ("version", Sort::Version),
    ("host", Sort::Host),
    ("first_seen", Sort::FirstSeen),
    ("last_seen", Sort::LastSeen),
];

/// Where an instance stands in a sorted list: what it is sorted by, and its names.
type SortKey = (String, String, String);

/// The instances of the applications whose `hub.instances.{app}` the caller may read.
pub(super) async fn list(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(asked): Query<InstancesQuery>,
) -> Result<Response, Problem> {
    if let Some(app) = asked.app.as_ref().filter(|app| !may_read(&principal, app)) {
        let topic =
            app.registry_topic().map_err(|error| Problem::bad_request(error.to_string()))?;
        return Err(Problem::forbidden(&[format!("subscribe {topic}")]));
    }
    let permit = state.query_limit.ask(&principal).await?;
    let (all, who) = (state.instances.clone(), Arc::clone(&principal));
    let (answer, _permit) = query_limit::work(permit, move || asked.answer(&all, &who)).await?;
    answers::json(&state, &principal, &answer)
}

impl InstancesQuery {
    /// The page asked for, of the instances that `principal` may see.
    fn answer(&self, instances: &Instances, principal: &Principal) -> InstancesPage {
        let mut visible: HashMap<AppName, bool> = HashMap::new();
        let mut is_visible =
            |app: &AppName| *visible.entry(app.clone()).or_insert_with(|| may_read(principal, app));
        let wanted = self.q.to_lowercase();
        let found = instances.list(|record| self.wants(&wanted, record) && is_visible(&record.app));
        let mut counts: BTreeMap<_, _> = InstanceState::ALL.map(|state| (state, 0)).into();
        for record in &found {
            *counts.entry(record.pulse.state).or_default() += 1;
        }
        let mut placed: Vec<(SortKey, InstanceRecord)> =
            found.into_iter().map(|record| (self.place(&record), record)).collect();
        placed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let Parsed(SortOrder { is_descending, .. }) = self.sort;
        if is_descending {
            placed.reverse();
        }
        if let Some(PageStart(after)) = &self.after {
            let is_behind =
                |place: &SortKey| if is_descending { place < after } else { place > after };
            placed.retain(|(place, _)| is_behind(place));
        }
        let next = paging::cut(&mut placed, self.limit.get(), |(place, _)| place.clone());
        let instances = placed.into_iter().map(|(_, record)| record).collect();
        InstancesPage { instances, counts, next }
    }
}

/// Makes an API key for one instance and shows it, this once; the one it had is good no longer.
pub(super) async fn rotate_key(
    State(state): State<AppState>,
    Caller(principal): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let (app, id) = named(&principal, path)?;
    let key = state.instances.keys().rotate(&app, &id).await?;
    let answer = json!({"app": app, "instance_id": id, "key": key.expose_secret()});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Takes an instance and its key out of the registry.
pub(super) async fn forget(
    State(state): State<AppState>,
    Caller(principal): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let (app, id) = named(&principal, path)?;
    state.instances.keys().forget(&app, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The instance a path names, for admins.
fn named(
    principal: &Principal,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(AppName, InstanceId), Problem> {
    if !principal.admin {
        return Err(Problem::forbidden(&["admin".to_owned()]));
    }
    let Path((app, id)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let app = AppName::parse(&app).map_err(|error| Problem::bad_request(error.to_string()))?;
    let id = InstanceId::parse(&id).map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok((app, id))
}

fn may_read(principal: &Principal, app: &AppName) -> bool {
    app.registry_topic().is_ok_and(|topic| principal.may_subscribe(&TopicPattern::from(&topic)))
}

impl InstancesQuery {
    /// `wanted` is `q` in lower case.
    fn wants(&self, wanted: &str, record: &InstanceRecord) -> bool {
        self.app.as_ref().is_none_or(|app| *app == record.app)
            && (self.state.0.is_empty()
                || self.state.0.iter().any(|StateName(state)| *state == record.pulse.state))
            && (wanted.is_empty()
                || [record.instance_id.as_str(), version(record), host(record)]
                    .iter()
                    .any(|text| text.to_lowercase().contains(wanted)))
    }

    fn place(&self, record: &InstanceRecord) -> SortKey {
        let by = match self.sort.0.by {
            Sort::App => String::new(),
            Sort::State => record.pulse.state.name().to_owned(),
            Sort::Version => version(record).to_owned(),
            Sort::Host => host(record).to_owned(),
            Sort::FirstSeen => rfc3339(record.first_seen.0),
            Sort::LastSeen => rfc3339(record.pulse.last_seen.0),
        };
        (by, record.app.as_str().to_owned(), record.instance_id.as_str().to_owned())
    }
}

fn version(record: &InstanceRecord) -> &str {
    let said = record.registration.as_ref().map(|registered| &registered.said);
    said.and_then(|said| said.version.as_deref()).unwrap_or_default()
}

fn host(record: &InstanceRecord) -> &str {
    let said = record.registration.as_ref().map(|registered| &registered.said);
    said.and_then(|said| said.system.get("hostname")?.as_str()).unwrap_or_default()
}

impl FromStr for StateName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = InstanceState::ALL.into_iter().find(|state| state.name() == text);
        found.map(Self).ok_or("the states are pending, up, late and down")
    }
}

impl Default for Parsed<SortOrder> {
    fn default() -> Self {
        Self(SortOrder { by: Sort::App, is_descending: false })
    }
}

impl FromStr for SortOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_descending) =
            text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let found = SORTS.iter().find(|(known, _)| *known == name);
        found.map(|(_, by)| Self { by: *by, is_descending }).ok_or_else(|| {
            let names: Vec<_> = SORTS.iter().map(|(name, _)| *name).collect();
            format!("must be one of {}, with a - before it for the reverse", names.join(", "))
        })
    }
}
