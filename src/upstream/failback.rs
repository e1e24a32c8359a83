//! Where a pool's traffic is held, and when it goes back: pure; what is seen and the time come in.
//!
//! The stages of a pool, best first: its primaries, its backups, the pools of its chain. Workers go on to the next stage
//! by themselves, within the request, and hold it there (`PoolState::raise`); only here is it let go again.

use std::time::Instant;

use crate::config::model::Failback;

/// The primaries' place among the stages.
pub const PRIMARIES: usize = 0;
/// The backups'; the pools of the chain come behind.
pub const BACKUPS: usize = 1;

/// What the control plane sees of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// It can serve.
    pub usable: bool,
    /// It can, and has not flapped so much that it must stay longer first.
    pub calm: bool,
}

/// Where traffic begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// The stage that is used first.
    pub held: usize,
    /// A better stage that takes `share` of the traffic; `held` where none does.
    pub target: usize,
    /// From 0 to 1.
    pub share: f64,
}

/// Remembers since when each stage has been calm.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    calm_since: Vec<Option<Instant>>,
}

impl Keeper {
    /// Takes a look; `held` is where traffic is held now, `released` that an operator lets it go.
    pub fn step(&mut self, how: Failback, sights: &[Sight], held: usize, released: bool, now: Instant) -> Hold {
        self.calm_since.resize(sights.len(), None);
        for (since, sight) in self.calm_since.iter_mut().zip(sights) {
            *since = sight.calm.then(|| since.unwrap_or(now));
        }
        let held = held.min(sights.len().saturating_sub(1));
        // What cannot serve holds nothing: the best that can, does; where none can, it stays.
        let serves = sights.get(held).is_some_and(|sight| sight.usable);
        let best = sights.iter().position(|sight| sight.usable).unwrap_or(held);
        let held = if serves { held } else { best };
        for better in 0..held {
            match self.goes_back(better, how, sights, released, now) {
                share if share >= 1.0 => return Hold { held: better, target: better, share: 0.0 },
                share if share > 0.0 => return Hold { held, target: better, share },
                _ => {}
            }
        }
        Hold { held, target: held, share: 0.0 }
    }

    /// Since when a stage has been usable without a break that counts.
    pub fn calm_since(&self, stage: usize) -> Option<Instant> {
        self.calm_since.get(stage).copied().flatten()
    }

    /// How much of the traffic goes back to a stage.
    fn goes_back(&self, stage: usize, how: Failback, sights: &[Sight], released: bool, now: Instant) -> f64 {
        let usable = sights.get(stage).is_some_and(|sight| sight.usable);
        if released && usable {
            return 1.0;
        }
        let Some(since) = self.calm_since(stage) else { return 0.0 };
        let stayed = now.saturating_duration_since(since);
        match how {
            Failback::AtOnce => 1.0,
            Failback::AfterStable(time) => f64::from(u8::from(stayed >= time)),
            Failback::Ramp(time) => stayed.as_secs_f64() / time.as_secs_f64().max(0.001),
            Failback::Manual => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock;

    const UP: Sight = Sight { usable: true, calm: true };
    const DOWN: Sight = Sight { usable: false, calm: false };
    const SHAKY: Sight = Sight { usable: true, calm: false };
    const MINUTE: Duration = Duration::from_secs(60);

    fn held(keeper: &mut Keeper, how: Failback, sights: &[Sight], held: usize, now: Instant) -> usize {
        keeper.step(how, sights, held, false, now).held
    }

    #[test]
    fn it_goes_on_to_what_serves_and_stays_where_nothing_does() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        for how in [Failback::AtOnce, Failback::Manual, Failback::AfterStable(MINUTE), Failback::Ramp(MINUTE)] {
            assert_eq!(held(&mut keeper, how, &[DOWN, UP, UP], 0, now), 1);
            assert_eq!(held(&mut keeper, how, &[DOWN, DOWN, UP], 1, now), 2);
            assert_eq!(held(&mut keeper, how, &[DOWN, DOWN, DOWN], 1, now), 1);
            assert_eq!(held(&mut keeper, how, &[SHAKY, DOWN, UP], 1, now), 0, "what is left is better than nothing");
        }
    }

    #[test]
    fn at_once_waits_for_calm_alone() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        assert_eq!(held(&mut keeper, Failback::AtOnce, &[SHAKY, UP], 1, now), 1);
        assert_eq!(held(&mut keeper, Failback::AtOnce, &[UP, UP], 1, now), 0);
    }

    #[test]
    fn after_stable_begins_anew_with_each_break() {
        let (mut keeper, start) = (Keeper::default(), clock::now());
        let how = Failback::AfterStable(MINUTE);
        assert_eq!(held(&mut keeper, how, &[UP, UP], 1, start), 1);
        assert_eq!(held(&mut keeper, how, &[DOWN, UP], 1, start + MINUTE / 2), 1);
        assert_eq!(held(&mut keeper, how, &[UP, UP], 1, start + MINUTE / 2), 1);
        assert_eq!(held(&mut keeper, how, &[UP, UP], 1, start + MINUTE), 1);
        assert_eq!(held(&mut keeper, how, &[UP, UP], 1, start + MINUTE * 3 / 2), 0);
    }

    #[test]
    fn a_ramp_grows_evenly_and_ends() {
        let (mut keeper, start) = (Keeper::default(), clock::now());
        let how = Failback::Ramp(MINUTE);
        let mut shares = Vec::new();
        for quarter in 0..=4 {
            let hold = keeper.step(how, &[UP, UP], 1, false, start + MINUTE / 4 * quarter);
            shares.push((hold.held, hold.share));
        }
        assert_eq!(shares, [(1, 0.0), (1, 0.25), (1, 0.5), (1, 0.75), (0, 0.0)]);
    }

    #[test]
    fn by_hand_means_by_hand() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        assert_eq!(held(&mut keeper, Failback::Manual, &[UP, UP], 1, now + MINUTE * 1000), 1);
        assert_eq!(keeper.step(Failback::Manual, &[DOWN, UP], 1, true, now).held, 1, "there is nothing to go back to");
        assert_eq!(keeper.step(Failback::Manual, &[UP, UP], 1, true, now).held, 0);
    }
}
