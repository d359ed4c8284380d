//! What a session waits for: a token to be checked, a subscription to begin, events to be stored.

use std::{pin::Pin, sync::Arc};

use secrecy::SecretString;

use super::AppState;
use crate::{
    access::Credential,
    admission::Admitted,
    auth::{AuthError, Principal},
    broker::{PublishError, Published},
    dialect::Form,
    hub::{Cursor, SubscribeError, Subscription, TaskWaker},
    protocol::{Losses, MessageId, SubscribedStart},
};

/// Something under way.
pub(super) type Pending = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What has become of it.
pub(super) enum Done {
    Authenticated(Result<Arc<Principal>, AuthError>),
    Subscribed(Option<MessageId>, Form, Result<(Cursor, SubscribedStart), SubscribeError>),
    Published(MessageId, Losses, Result<Published, PublishError>),
}

pub(super) fn authenticate(state: &AppState, token: SecretString) -> Pending {
    let access = state.access.clone();
    Box::pin(
        async move { Done::Authenticated(access.authenticate(&Credential::Token(token)).await) },
    )
}

pub(super) fn subscribe(
    state: &AppState,
    id: Option<MessageId>,
    subscription: Subscription,
    waker: Arc<TaskWaker>,
) -> Pending {
    let (hub, form) = (state.hub.clone(), subscription.form.clone());
    Box::pin(async move { Done::Subscribed(id, form, hub.subscribe(subscription, waker).await) })
}

pub(super) fn publish(
    state: &AppState,
    id: MessageId,
    events: Admitted,
    mut dropped: Losses,
) -> Pending {
    state.series.crowded_out(&events, &mut dropped);
    let broker = state.broker.clone();
    Box::pin(async move { Done::Published(id, dropped, broker.publish(events.into()).await) })
}
