//! Wrong sign-ins by address, which are limited because no person types that fast.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use parking_lot::Mutex;

use crate::time::Millis;

/// For how long a wrong sign-in counts, in milliseconds.
const WINDOW: Millis = 60_000;

/// Addresses remembered at a time. When there is no room for another, all are forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// The wrong sign-ins of the last minute.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<IpAddr, WrongSignIns>>);

struct WrongSignIns {
    since: Millis,
    count: u32,
}

impl Attempts {
    /// Begins a sign-in. It counts as a wrong one until [`right`](Self::right) is called, so that many attempts at the
    /// same time count like many in a row. The error says how long to wait.
    pub(super) fn begin(&self, address: IpAddr, most: u32, now: Millis) -> Result<(), Duration> {
        let mut addresses = self.0.lock();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, wrong| wrong.since + WINDOW > now);
            if addresses.len() >= MAX_ADDRESSES {
                addresses.clear();
            }
        }
        let wrong =
            addresses.entry(network(address)).or_insert(WrongSignIns { since: now, count: 0 });
        if wrong.since + WINDOW <= now {
            *wrong = WrongSignIns { since: now, count: 0 };
        }
        if wrong.count >= most {
            let left = (wrong.since + WINDOW - now).min(WINDOW);
            return Err(Duration::from_millis(left));
        }
        wrong.count += 1;
        Ok(())
    }

    /// A sign-in that was begun was not a wrong one.
    pub(super) fn right(&self, address: IpAddr) {
        if let Some(wrong) = self.0.lock().get_mut(&network(address)) {
            wrong.count = wrong.count.saturating_sub(1);
        }
    }
}

/// Of an IPv6 address the half that a provider gives to one customer.
pub(super) fn network(address: IpAddr) -> IpAddr {
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
            assert_eq!(attempts.begin(one, 10, 1000 + n), Ok(()));
            assert_eq!(attempts.begin(other, 10, 1000 + n), Ok(()));
            attempts.right(other);
        }
        assert_eq!(attempts.begin(one, 10, 31_000), Err(Duration::from_secs(30)));
        assert_eq!(attempts.begin(other, 10, 31_000), Ok(()), "right ones do not count");
        assert_eq!(attempts.begin(one, 10, 61_000), Ok(()), "counted anew");
        assert_eq!(attempts.begin(one, 10, 61_000), Ok(()));
        let six = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(six("2001:db8::1")), network(six("2001:db8::2")));
        assert_ne!(network(six("2001:db8:0:1::1")), network(six("2001:db8::1")));
    }
}
