//! Who has a connection: a limit in all, a limit for each address, and a few slots only for admins and health probes.
//!
//! A stranger is a connection that has shown no valid credentials. When all slots are taken, a new connection gets the
//! slot of the stranger that has been quiet longest. So strangers alone can never fill the hub.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::attempts::network;
use crate::telemetry::{Limit, Telemetry};

/// All slots.
#[derive(Clone)]
pub(super) struct ConnectionSlots(Arc<SlotsInner>);

struct SlotsInner {
    most: usize,
    /// How many of them are reserved.
    reserve: usize,
    most_per_address: usize,
    telemetry: Telemetry,
    /// Locked to come, to go, and for each request of a stranger; never for longer than a look into the maps.
    state: Mutex<SlotsState>,
    /// Notified when a connection that lost its slot has ended.
    left: Notify,
}

#[derive(Default)]
struct SlotsState {
    taken: usize,
    /// Slots lost to others whose connections are not closed yet.
    leaving: usize,
    /// Numbers strangers by when they were last heard of.
    next: u64,
    strangers: BTreeMap<u64, Arc<SlotCard>>,
    by_address: HashMap<IpAddr, AddressSlots>,
}

#[derive(Default)]
struct AddressSlots {
    taken: usize,
    strangers: BTreeSet<u64>,
}

/// What there is to know of one connection.
struct SlotCard {
    evicted: Notify,
    is_known: AtomicBool,
    /// Changed under the lock of all.
    place: Mutex<SlotHolder>,
}

#[derive(Clone, Copy)]
struct SlotHolder {
    address: Option<IpAddr>,
    /// Its number among the strangers.
    number: Option<u64>,
    is_lost: bool,
    is_reserved: bool,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// One address has as many connections as it may.
    Address,
    /// All are taken.
    All,
}

/// One connection's; dropping it leaves it to others. Whoever takes over the connection, as a WebSocket does, keeps it.
pub(super) struct ConnectionSlot {
    all: Arc<SlotsInner>,
    card: Arc<SlotCard>,
}

/// A proxy's request counted by the client's address, for as long as this is kept.
pub(super) struct Visit {
    all: Arc<SlotsInner>,
    address: IpAddr,
}

/// Slots that are reserved, at most.
const RESERVE: usize = 16;

/// Lost slots whose connections may be open still.
const MAX_LEAVING: usize = 64;

impl ConnectionSlots {
    pub(super) fn new(most: usize, most_per_address: usize, telemetry: Telemetry) -> Self {
        // One address leaves something to others, however little there is.
        let most_per_address = most_per_address.min(most - most / 4).max(1);
        let reserve = RESERVE.min(most / 8);
        let state = Mutex::default();
        let left = Notify::new();
        Self(Arc::new(SlotsInner { most, reserve, most_per_address, telemetry, state, left }))
    }

    /// Resolves when few are leaving, so that the next may get the slot of another.
    pub(super) async fn calm(&self) {
        while self.0.state.lock().leaving >= MAX_LEAVING {
            self.0.left.notified().await;
        }
    }

    /// A slot for whoever has just connected from `address`; without one it is a proxy's, which nobody counts by address.
    pub(super) fn take(&self, address: Option<IpAddr>) -> Result<ConnectionSlot, NoSlot> {
        let inner = &*self.0;
        let mut state = inner.state.lock();
        if let Some(address) = address {
            inner.make_room_of(&mut state, network(address))?;
        }
        if state.taken >= inner.most - inner.reserve {
            inner.telemetry.hit(Limit::Connections);
            let quietest = state.strangers.keys().next().copied();
            let is_free = quietest.is_some_and(|number| state.evict(number));
            if !is_free && state.taken >= inner.most {
                return Err(NoSlot::All);
            }
        }
        state.taken += 1;
        let is_reserved = state.taken > inner.most - inner.reserve;
        let place = SlotHolder { address: None, number: None, is_lost: false, is_reserved };
        let card = Arc::new(SlotCard {
            evicted: Notify::new(),
            is_known: AtomicBool::new(false),
            place: Mutex::new(place),
        });
        state.settle(&card, address.map(network));
        state.list(&card);
        Ok(ConnectionSlot { all: Arc::clone(&self.0), card })
    }
}

impl SlotsInner {
    /// At its limit an address loses its own quietest stranger, or comes in vain.
    fn make_room_of(&self, state: &mut SlotsState, address: IpAddr) -> Result<(), NoSlot> {
        let Some(own) = state.by_address.get(&address) else { return Ok(()) };
        if own.taken < self.most_per_address {
            return Ok(());
        }
        self.telemetry.hit(Limit::ConnectionsPerAddress);
        let quietest = own.strangers.first().copied();
        let is_free = quietest.is_some_and(|number| state.evict(number));
        if is_free { Ok(()) } else { Err(NoSlot::Address) }
    }
}

impl SlotsState {
    /// Takes a stranger's slot away; false if too many are leaving already.
    fn evict(&mut self, number: u64) -> bool {
        if self.leaving >= MAX_LEAVING {
            return false;
        }
        let Some(card) = self.strangers.get(&number).cloned() else { return false };
        self.unlist(&card);
        card.place.lock().is_lost = true;
        self.leaving += 1;
        self.free(&card);
        card.evicted.notify_one();
        true
    }

    fn free(&mut self, card: &SlotCard) {
        self.taken -= 1;
        if let Some(address) = card.place.lock().address.take() {
            self.uncount(address);
        }
    }

    fn settle(&mut self, card: &SlotCard, address: Option<IpAddr>) {
        card.place.lock().address = address;
        if let Some(address) = address {
            self.by_address.entry(address).or_default().taken += 1;
        }
    }

    fn uncount(&mut self, address: IpAddr) {
        if let Some(own) = self.by_address.get_mut(&address) {
            own.taken -= 1;
            if own.taken == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Puts it at the end of the strangers.
    fn list(&mut self, card: &Arc<SlotCard>) {
        let mut place = card.place.lock();
        if place.is_lost {
            return;
        }
        let number = self.next;
        self.next += 1;
        place.number = Some(number);
        self.strangers.insert(number, Arc::clone(card));
        if let Some(own) = place.address.and_then(|address| self.by_address.get_mut(&address)) {
            own.strangers.insert(number);
        }
    }

    fn unlist(&mut self, card: &SlotCard) {
        let mut place = card.place.lock();
        let Some(number) = place.number.take() else { return };
        self.strangers.remove(&number);
        if let Some(own) = place.address.and_then(|address| self.by_address.get_mut(&address)) {
            own.strangers.remove(&number);
        }
    }
}

impl ConnectionSlot {
    /// Notes that valid credentials were shown: this slot can no longer be taken away.
    pub(super) fn know(&self) {
        if !self.card.is_known.swap(true, Ordering::Relaxed) {
            self.all.state.lock().unlist(&self.card);
        }
    }

    /// Whether it may be taken away, or was; once it is known and was not, nobody takes it away.
    pub(super) fn is_at_risk(&self) -> bool {
        let _state = self.all.state.lock(); // whoever takes it away holds this until all is noted
        let place = self.card.place.lock();
        place.number.is_some() || place.is_lost
    }

    /// Notes that something was asked.
    pub(super) fn touch(&self) {
        if !self.card.is_known.load(Ordering::Relaxed) {
            let mut state = self.all.state.lock();
            state.unlist(&self.card);
            // One that has shown credentials meanwhile is no stranger any more.
            if !self.card.is_known.load(Ordering::Relaxed) {
                state.list(&self.card);
            }
        }
    }

    /// Notes whose connection it is, as the proxy says that passes it on.
    pub(super) fn belongs_to(&self, address: IpAddr) -> Result<(), NoSlot> {
        let mut state = self.all.state.lock();
        if self.card.place.lock().is_lost {
            return Ok(()); // its connection ends at once, and counts nowhere any more
        }
        self.all.make_room_of(&mut state, network(address))?;
        state.unlist(&self.card);
        state.settle(&self.card, Some(network(address)));
        state.list(&self.card);
        Ok(())
    }

    /// Counts a request by the address a proxy names.
    pub(super) fn visit(&self, address: IpAddr) -> Result<Visit, NoSlot> {
        let address = network(address);
        let mut state = self.all.state.lock();
        let own = state.by_address.entry(address).or_default();
        if own.taken >= self.all.most_per_address {
            self.all.telemetry.hit(Limit::ConnectionsPerAddress);
            return Err(NoSlot::Address);
        }
        own.taken += 1;
        Ok(Visit { all: Arc::clone(&self.all), address })
    }

    /// Whether only admins and probes of health may use it now.
    pub(super) fn is_reserved(&self) -> bool {
        let state = self.all.state.lock();
        let is_full = state.taken > self.all.most - self.all.reserve;
        is_full && self.card.place.lock().is_reserved
    }

    /// Resolves when the slot was taken away.
    pub(super) async fn evicted(&self) {
        self.card.evicted.notified().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut state = self.all.state.lock();
        state.unlist(&self.card);
        let is_lost = self.card.place.lock().is_lost;
        if is_lost {
            state.leaving -= 1;
            self.all.left.notify_one();
        } else {
            state.free(&self.card);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.all.state.lock().uncount(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn there(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn is_lost(slot: &ConnectionSlot) -> bool {
        slot.card.place.lock().is_lost
    }

    #[test]
    fn strangers_never_fill_the_hub() {
        let slots = ConnectionSlots::new(80, 80, Telemetry::new()); // 10 of them are reserved, 60 are for one address
        let quiet: Vec<_> = (0..70).map(|n| slots.take(Some(there(n))).unwrap()).collect();
        quiet[0].touch();
        let slot = slots.take(Some(HERE)).unwrap();
        assert!(is_lost(&quiet[1]) && !is_lost(&quiet[0]), "the quietest goes first");
        assert!(!slot.is_reserved());
        drop(quiet);
        assert_eq!(slots.0.state.lock().taken, 1);
        assert_eq!(slots.0.state.lock().leaving, 0);
    }

    #[test]
    fn those_who_showed_credentials_stay_and_a_reserve_is_left() {
        let slots = ConnectionSlots::new(80, 80, Telemetry::new());
        let mut all: Vec<_> = (0..70).map(|n| slots.take(Some(there(n))).unwrap()).collect();
        all.iter().for_each(ConnectionSlot::know);
        let first = slots.take(Some(HERE)).unwrap();
        let second = slots.take(Some(HERE)).unwrap();
        assert!(is_lost(&first) && second.is_reserved(), "strangers share the reserve");
        assert!(!all.iter().any(is_lost));
        all.pop();
        assert!(!second.is_reserved(), "there is room");
    }

    #[test]
    fn one_address_takes_from_itself() {
        let slots = ConnectionSlots::new(800, 3, Telemetry::new());
        let own: Vec<_> = (0..4).map(|_| slots.take(Some(HERE)).unwrap()).collect();
        assert!(is_lost(&own[0]));
        own.iter().for_each(ConnectionSlot::know);
        assert_eq!(slots.take(Some(HERE)).err(), Some(NoSlot::Address));
        let proxy = slots.take(None).unwrap();
        assert_eq!(proxy.visit(HERE).err(), Some(NoSlot::Address));
        assert_eq!(proxy.belongs_to(HERE), Err(NoSlot::Address));
        let visit = proxy.visit(there(1)).unwrap();
        drop((own, visit, proxy));
        assert!(slots.0.state.lock().by_address.is_empty());
        slots.take(Some(HERE)).unwrap();
    }

    #[test]
    fn a_slot_lost_while_its_proxy_spoke_was_counted_for_ever() {
        let slots = ConnectionSlots::new(80, 80, Telemetry::new());
        let proxied = slots.take(None).unwrap();
        let others: Vec<_> = (0..70).map(|n| slots.take(Some(there(n))).unwrap()).collect();
        assert!(is_lost(&proxied));
        proxied.belongs_to(HERE).unwrap();
        drop((proxied, others));
        let state = slots.0.state.lock();
        assert!(state.by_address.is_empty());
        assert_eq!((state.taken, state.leaving), (0, 0));
    }
}
