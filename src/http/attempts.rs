//! Wrong sign-ins, by the address they come from: slowed, because nobody types that fast.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;

use crate::time::Millis;

/// For how long a wrong sign-in counts, in milliseconds.
const WINDOW: Millis = 60_000;

/// Addresses remembered at a time; when there is no room for another, all begin anew.
const MAX_ADDRESSES: usize = 10_000;

/// The wrong sign-ins of the last minute.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<IpAddr, Wrong>>);

struct Wrong {
    since: Millis,
    count: u32,
}

impl Attempts {
    /// How long an address must wait that has had `most` wrong sign-ins.
    pub(super) fn wait(&self, address: IpAddr, most: u32, now: Millis) -> Option<Duration> {
        let addresses = self.0.lock();
        let wrong = addresses.get(&network(address)).filter(|wrong| wrong.count >= most)?;
        let left = (wrong.since + WINDOW).saturating_sub(now).min(WINDOW);
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Notes a wrong sign-in.
    pub(super) fn wrong(&self, address: IpAddr, now: Millis) {
        let mut addresses = self.0.lock();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, wrong| wrong.since + WINDOW > now);
            if addresses.len() >= MAX_ADDRESSES {
                addresses.clear();
            }
        }
        let wrong = addresses.entry(network(address)).or_insert(Wrong { since: now, count: 0 });
        if wrong.since + WINDOW <= now {
            *wrong = Wrong { since: now, count: 0 };
        }
        wrong.count += 1;
    }
}

/// Of an IPv6 address the half that a provider gives to one customer.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_sign_ins_a_minute_and_then_a_pause() {
        let attempts = Attempts::default();
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for n in 0..10 {
            assert_eq!(attempts.wait(one, 10, 1000 + n), None);
            attempts.wrong(one, 1000 + n);
        }
        assert_eq!(attempts.wait(one, 10, 31_000), Some(Duration::from_secs(30)));
        assert_eq!(attempts.wait(other, 10, 31_000), None);
        assert_eq!(attempts.wait(one, 10, 61_000), None);
        attempts.wrong(one, 61_000);
        assert_eq!(attempts.wait(one, 10, 61_000), None, "counted anew");
        let six = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(six("2001:db8::1")), network(six("2001:db8::2")));
        assert_ne!(network(six("2001:db8:0:1::1")), network(six("2001:db8::1")));
    }
}
