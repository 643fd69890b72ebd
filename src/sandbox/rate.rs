//! How often pairing codes may be guessed.
//!
//! Every try takes a place in a window of one minute, per address and over all; a try that was
//! right gives it back, so that pairing many gateways is never slowed down.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_mins(1);
const PER_ADDRESS: u32 = 10;
const OVERALL: u32 = 100;
/// More addresses than that are counted together only.
const MAX_ADDRESSES: usize = 4096;

#[derive(Debug)]
struct Window {
    since: Instant,
    used: u32,
}

impl Window {
    fn admit(&mut self, limit: u32, now: Instant) -> Result<(), Duration> {
        let age = now.duration_since(self.since);
        if age >= WINDOW {
            *self = Self { since: now, used: 0 };
        } else if self.used >= limit {
            return Err(WINDOW.saturating_sub(age));
        }
        self.used += 1;
        Ok(())
    }

    fn forgive(&mut self) {
        self.used = self.used.saturating_sub(1);
    }
}

#[derive(Debug)]
struct Windows {
    overall: Window,
    by_address: HashMap<IpAddr, Window>,
}

/// Counts tries.
#[derive(Debug)]
pub(super) struct GuessLimit {
    windows: Mutex<Windows>,
}

impl GuessLimit {
    /// Nothing tried yet.
    pub(super) fn new(now: Instant) -> Self {
        let overall = Window { since: now, used: 0 };
        Self { windows: Mutex::new(Windows { overall, by_address: HashMap::new() }) }
    }

    /// Takes a place for a try from `address`, or says how long to wait for one.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network_of(address);
        if !windows.by_address.contains_key(&key) && windows.by_address.len() >= MAX_ADDRESSES {
            windows.by_address.retain(|_, window| now.duration_since(window.since) < WINDOW);
        }
        if windows.by_address.contains_key(&key) || windows.by_address.len() < MAX_ADDRESSES {
            windows
                .by_address
                .entry(key)
                .or_insert(Window { since: now, used: 0 })
                .admit(PER_ADDRESS, now)?;
        }
        windows.overall.admit(OVERALL, now)
    }

    /// Gives the place of a try back that was right.
    pub(super) fn forgive(&self, address: IpAddr) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.overall.forgive();
        if let Some(window) = windows.by_address.get_mut(&network_of(address)) {
            window.forgive();
        }
    }
}

/// One host has a whole IPv6 /64 to speak from.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[tokio::test(start_paused = true)]
    async fn ten_wrong_codes_a_minute_and_address() {
        let limit = GuessLimit::new(Instant::now());
        for _ in 0..PER_ADDRESS {
            assert_eq!(limit.admit(address(1), Instant::now()), Ok(()));
        }
        assert_eq!(limit.admit(address(1), Instant::now()), Err(WINDOW));
        assert_eq!(limit.admit(address(2), Instant::now()), Ok(()));
        tokio::time::advance(WINDOW).await;
        assert_eq!(limit.admit(address(1), Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_share_one_limit_and_right_codes_are_free() {
        let limit = GuessLimit::new(Instant::now());
        for _ in 0..500 {
            assert_eq!(limit.admit(address(1), Instant::now()), Ok(()));
            limit.forgive(address(1));
        }
        let admitted =
            (0..=255).filter(|&host| limit.admit(address(host), Instant::now()).is_ok()).count();
        assert_eq!(admitted, 100);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let other: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        let elsewhere: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(network_of(one), network_of(other));
        assert_ne!(network_of(one), network_of(elsewhere));
    }
}
