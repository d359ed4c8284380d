//! Descriptors: how many the process may have, of which each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What connections leave to the log, the store and what the hub connects to, and to connections that are being told
/// to go.
const SPARE: u64 = 192;

/// Raises the soft limit to the hard one; tells how many connections fit, None if any number does.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors cannot be raised");
            current
        }
    };
    tracing::info!(from = current, to = limit, "limit of descriptors");
    limit.map(room)
}

/// How many connections would fit after a [`raise`].
pub fn room_now() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum.map(room)
}

fn room(limit: u64) -> u64 {
    limit.saturating_sub(SPARE).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_log() {
        assert_eq!(room(1024), 832);
        assert_eq!(room(100), 50);
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let less = maximum.map_or(1 << 16, |most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(less), maximum }).unwrap();
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
