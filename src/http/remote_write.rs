//! `POST /api/v1/write`, at Prometheus' path too: remote write 1.0 in, events of type `samples` out.

use std::collections::HashMap;

use axum::{
    body::{Body, Bytes},
    extract::State,
};
use http::{HeaderMap, StatusCode, header};

use super::{AppState, Caller, Problem, body, media};
use crate::{
    auth::Principal,
    broker::Batch,
    event::new_id,
    ingest::{
        Defaults,
        remote_write::{self, RemoteWrite, RemoteWriteRules},
    },
    series,
    telemetry::DroppedPart,
};

/// Stores what can be stored. Answers 204 if that is all of it, else 400 with the samples that are refused. Prometheus
/// retries after a 5xx and drops a request after a 4xx.
pub(super) async fn write(
    State(state): State<AppState>,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    take(&state, &principal, &headers, body).await.map_err(Problem::for_who_gives_up)
}

async fn take(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    check_type(headers)?;
    // Held until the events have been stored: the queue's own limit counts them only from then on.
    let (body, _charge) = body::read(headers, body, state, principal).await?;
    let RemoteWrite { topics, mut losses } = read(body, state, principal).await?;
    let (mut events, mut stored, mut counts) = (Vec::new(), 0, HashMap::new());
    for found in topics {
        match state.terms.admission.check_topic(principal, &found.topic) {
            Ok(()) => {
                stored += found.samples;
                counts.insert(found.topic, found.samples);
                events.extend(found.events);
            }
            Err(why) => losses.add(DroppedPart::Sample, found.samples, || why.to_string()),
        }
    }
    let most = state.terms.admission.limits().batch;
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(most));
        let admitted = state.admit(principal, None, events)?;
        let before = losses.total();
        state.series.crowded_out(&admitted, &mut losses);
        stored = stored.saturating_sub(losses.total() - before);
        let published = state.broker.publish(Batch::from(admitted).what_fits(0)).await?;
        for topic in published.left_out.iter().flat_map(|left_out| &left_out.topics) {
            // Without room now, it had none in an earlier batch, nor has it in a later one.
            let lost = counts.remove(topic).unwrap_or_default();
            stored = stored.saturating_sub(lost);
            losses.add(DroppedPart::Sample, lost, || {
                format!("{topic}: the log holds no more topics: journal.max_topics")
            });
        }
        events = rest;
    }
    losses.count(&state.telemetry);
    if losses.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let (lost, reasons) = (losses.total(), losses.reasons().join("; "));
    let detail = format!("{lost} refused, {stored} stored: {reasons}");
    Err(Problem::samples_refused(detail, &losses))
}

async fn read(
    body: Bytes,
    state: &AppState,
    principal: &Principal,
) -> Result<RemoteWrite, Problem> {
    let topic = state.settings.ingest.remote_write.topic.clone();
    let limits = *state.terms.admission.limits();
    let now = state.clock.now();
    let times = state.series.times(now);
    let most = state.settings.limits.body.as_usize();
    let (source, publisher) = (principal.name.clone(), principal.publisher.clone());
    let read = body::parse(body, move |body| {
        let defaults = Defaults { source: &source, publisher: &publisher, now, new_id };
        let rules = RemoteWriteRules { topic: &topic, limits: &limits, times, most };
        let mut write = remote_write::read(body, &rules, &defaults)?;
        for found in &mut write.topics {
            let left_out = series::extract::left_out(&found.events);
            found.samples = found.samples.saturating_sub(left_out.total());
            write.losses.extend(left_out);
        }
        Ok(write)
    });
    read.await?.map_err(|error: remote_write::RemoteWriteError| error.into())
}

/// Remote write 2.0 names another message (<https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>); a sender that is
/// answered 415 may go back to the first.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = media::content_type(headers);
    let parameters = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_other = parameters.is_some_and(|text| {
        let mut parameters = text.split(';').skip(1).filter_map(|pair| pair.trim().split_once('='));
        parameters.any(|(name, value)| name == "proto" && value != "prometheus.WriteRequest")
    });
    if kind.as_deref() == Some("application/x-protobuf") && !is_other {
        return Ok(());
    }
    Err(Problem::content_type(
        "send remote write 1.0: a prometheus.WriteRequest as `Content-Type: application/x-protobuf` and \
         `Content-Encoding: snappy`",
    ))
}
