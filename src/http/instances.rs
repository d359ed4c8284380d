//! `/api/v1/instances`: who publishes, and for admins what becomes of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, request::Parts};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;

use super::{AppState, Caller, Problem, answers, query, questions};
use crate::{
    auth::Principal,
    event::{AppName, InstanceId},
    instances::{Instances, Record, State as InstanceState},
    time::rfc3339,
    topic::TopicPattern,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Answer {
    instances: Vec<Record>,
    /// How many match, by state, on all pages.
    counts: BTreeMap<InstanceState, usize>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What was asked for.
struct Asked {
    app: Option<AppName>,
    states: Vec<InstanceState>,
    /// In lower case.
    text: String,
    sort: Sort,
    descending: bool,
    after: Option<Place>,
    limit: usize,
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
type Place = (String, String, String);

/// The instances of the applications whose `hub.instances.{app}` the caller may read.
pub(super) async fn list(
    State(state): State<AppState>,
    Caller(principal): Caller,
    parts: Parts,
) -> Result<Response, Problem> {
    let asked = Asked::read(&parts)?;
    if let Some(app) = asked.app.as_ref().filter(|app| !may_read(&principal, app)) {
        let topic =
            app.registry_topic().map_err(|error| Problem::bad_request(error.to_string()))?;
        return Err(Problem::forbidden(&[format!("subscribe {topic}")]));
    }
    let asking = state.questions.ask(&principal).await?;
    let (all, who) = (state.instances.clone(), Arc::clone(&principal));
    let (answer, _asking) = questions::work(asking, move || asked.answer(&all, &who)).await?;
    answers::json(&state, &principal, &answer)
}

impl Asked {
    /// The page asked for, of the instances that `principal` may see.
    fn answer(&self, instances: &Instances, principal: &Principal) -> Answer {
        let mut visible: HashMap<AppName, bool> = HashMap::new();
        let mut is_visible =
            |app: &AppName| *visible.entry(app.clone()).or_insert_with(|| may_read(principal, app));
        let found = instances.list(|record| self.wants(record) && is_visible(&record.app));
        let mut counts: BTreeMap<_, _> = InstanceState::ALL.map(|state| (state, 0)).into();
        for record in &found {
            *counts.entry(record.pulse.state).or_default() += 1;
        }
        let mut placed: Vec<(Place, Record)> =
            found.into_iter().map(|record| (self.place(&record), record)).collect();
        placed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if self.descending {
            placed.reverse();
        }
        if let Some(after) = &self.after {
            let is_behind =
                |place: &Place| if self.descending { place < after } else { place > after };
            placed.retain(|(place, _)| is_behind(place));
        }
        let is_last = placed.len() <= self.limit;
        placed.truncate(self.limit);
        let next = placed.last().filter(|_| !is_last).map(|(place, _)| write_place(place));
        let instances = placed.into_iter().map(|(_, record)| record).collect();
        Answer { instances, counts, next }
    }
}

/// Makes an API key for one instance and shows it, this once; the one it had is good no longer.
pub(super) async fn rotate_key(
    State(state): State<AppState>,
    Caller(principal): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let (app, id) = named(&principal, path)?;
    let key = state.instances.rotate_key(&app, &id).await?;
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
    state.instances.forget(&app, &id).await?;
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

impl Asked {
    fn read(parts: &Parts) -> Result<Self, Problem> {
        let mut asked = Self {
            app: None,
            states: Vec::new(),
            text: String::new(),
            sort: Sort::App,
            descending: false,
            after: None,
            limit: DEFAULT_LIMIT,
        };
        for (name, value) in query::pairs(parts) {
            match &*name {
                "app" => {
                    let app = AppName::parse(&value);
                    asked.app = Some(app.map_err(|error| Problem::bad_request(error.to_string()))?);
                }
                "state" => asked.states.extend(states(&value)?),
                "q" => asked.text = value.to_lowercase(),
                "sort" => (asked.sort, asked.descending) = sort(&value)?,
                "after" => asked.after = Some(read_place(&value)?),
                "limit" => asked.limit = query::whole("limit", &value)?,
                _ => {} // as unknown fields are
            }
        }
        if asked.limit == 0 || asked.limit > MAX_LIMIT {
            return Err(Problem::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
        }
        Ok(asked)
    }

    fn wants(&self, record: &Record) -> bool {
        self.app.as_ref().is_none_or(|app| *app == record.app)
            && (self.states.is_empty() || self.states.contains(&record.pulse.state))
            && (self.text.is_empty()
                || [record.instance_id.as_str(), version(record), host(record)]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&self.text)))
    }

    fn place(&self, record: &Record) -> Place {
        let by = match self.sort {
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

fn version(record: &Record) -> &str {
    let said = record.registration.as_ref().map(|registered| &registered.said);
    said.and_then(|said| said.version.as_deref()).unwrap_or_default()
}

fn host(record: &Record) -> &str {
    let said = record.registration.as_ref().map(|registered| &registered.said);
    said.and_then(|said| said.system.get("hostname")?.as_str()).unwrap_or_default()
}

fn states(text: &str) -> Result<Vec<InstanceState>, Problem> {
    let state = |name: &str| InstanceState::ALL.into_iter().find(|state| state.name() == name);
    text.split(',')
        .map(|name| state(name.trim()))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::bad_request("`state` lists some of pending, up, late, down"))
}

fn sort(text: &str) -> Result<(Sort, bool), Problem> {
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let found = SORTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, sort)| (*sort, descending)).ok_or_else(|| {
        let names: Vec<_> = SORTS.iter().map(|(name, _)| *name).collect();
        Problem::bad_request(format!(
            "`sort` is one of {}, with a - before it for the reverse",
            names.join(", ")
        ))
    })
}

fn write_place(place: &Place) -> String {
    // Three texts can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

fn read_place(text: &str) -> Result<Place, Problem> {
    let place = URL_SAFE_NO_PAD.decode(text).ok();
    let place = place.and_then(|json| serde_json::from_slice(&json).ok());
    place.ok_or_else(|| Problem::bad_request("`after` is the `next` of the page before"))
}
