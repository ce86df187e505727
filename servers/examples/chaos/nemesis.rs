//! What goes wrong, and when: three actors that each do one thing after the other, by the seed.
//!
//! One harms processes and disks, one the network, one reconfigures and trims. Each draws from a deck
//! that it shuffles anew when it is empty, so that every kind has its share in a short run too. What
//! overlaps is up to chance: often a minority is in trouble, sometimes everybody.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use virtuallog::testing::Rng;
use virtuallog::{ErrorCode, LogPos, VirtualLog, server};

use crate::client::now;
use crate::nodes::{Node, Nodes, SUSPECT_AFTER};
use crate::proxy::{Fault, Party};

/// How long a look for a log's sequencer may take; in trouble any node will do.
const STATUS_MAX: Duration = Duration::from_millis(500);
/// How long a reconfiguration or a trim may take.
const CALL_MAX: Duration = Duration::from_secs(15);
/// Entries that a trim keeps.
const KEPT: u64 = 3000;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL to one node
    Kill,
    /// SIGKILL to all at once
    KillAll,
    /// SIGSTOP, and SIGCONT after the others have given it up
    Pause,
    /// Power loss of one node
    Power,
    /// Power loss of all at once
    PowerAll,
    /// A full disk
    Full,
    /// Connections end, and no new ones come about
    Cut,
    /// Bytes of one direction stop, and come later
    Stall,
    /// Bytes come late
    Delay,
    /// Half-open connections: bytes vanish
    Vanish,
    /// Reconfigurations to other native loglets
    Swap,
    /// Trims of every second log
    Trim,
}

/// How often a kind is in the deck of its actor.
const PROCESSES: [(Kind, usize); 6] = [
    (Kind::Kill, 6),
    (Kind::KillAll, 1),
    (Kind::Pause, 4),
    (Kind::Power, 1),
    (Kind::PowerAll, 1),
    (Kind::Full, 1),
];
const NETWORK: [(Kind, usize); 4] =
    [(Kind::Cut, 3), (Kind::Stall, 2), (Kind::Delay, 1), (Kind::Vanish, 2)];
const ADMIN: [(Kind, usize); 2] = [(Kind::Swap, 4), (Kind::Trim, 1)];

/// How many of each a minute has at the least, by the name that it is counted under: half of what two
/// busy cores do.
const LEAST: [(Kind, &str, u64); 10] = [
    (Kind::Kill, "kills", 12),
    (Kind::Pause, "pauses", 6),
    (Kind::Power, "power_losses", 3),
    (Kind::Full, "full_disks", 1),
    (Kind::Cut, "cuts", 5),
    (Kind::Stall, "stalls", 3),
    (Kind::Delay, "delays", 1),
    (Kind::Vanish, "half_open", 3),
    (Kind::Swap, "reconfigurations", 5),
    (Kind::Trim, "trims", 1),
];

/// Something that happened, for the account.
#[derive(Debug)]
pub(crate) struct Event {
    /// When it began, on the clock that clients use.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    /// The log whose sequencer it hit, if it was looked for.
    pub(crate) log: Option<usize>,
}

/// All that is counted and told.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) events: Vec<Event>,
    pub(crate) findings: Vec<String>,
    /// Trims: the log, begin, end, first position kept.
    pub(crate) trims: Vec<(usize, u64, u64, u64)>,
    /// How long nodes took to be up again, in milliseconds.
    pub(crate) starts_ms: Vec<u64>,
}

/// The faults of one run.
pub(crate) struct Nemesis {
    pub(crate) nodes: Nodes,
    /// Each log twice, so that two can race, and by its URL.
    pub(crate) logs: Vec<(String, [VirtualLog; 2])>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) begun: Instant,
    pub(crate) until: Instant,
    pub(crate) account: Mutex<Account>,
}

/// Kinds in a drawn order, each as often as its share.
struct Deck {
    shares: Vec<(Kind, usize)>,
    left: Vec<Kind>,
}

impl Deck {
    fn new(shares: &[(Kind, usize)], wanted: &[Kind]) -> Deck {
        let shares = shares.iter().filter(|(kind, _)| wanted.contains(kind)).copied().collect();
        Deck { shares, left: Vec::new() }
    }

    /// The next one; `None` when no kind is wanted.
    fn draw(&mut self, random: &mut Rng) -> Option<Kind> {
        if self.left.is_empty() {
            let cards = self.shares.iter().flat_map(|(kind, count)| vec![*kind; *count]);
            self.left = cards.collect();
        }
        let left = self.left.len() as u64;
        (left > 0).then(|| self.left.swap_remove(random.below(left) as usize))
    }
}

impl Nemesis {
    /// Does harm until the time is over. All that was begun is undone then.
    pub(crate) async fn run(&self, seed: u64) {
        let processes = async {
            let (mut random, mut deck) = (Rng::new(seed), Deck::new(&PROCESSES, &self.kinds));
            while let Some(kind) = self.next(&mut deck, &mut random) {
                self.harm(kind, &mut random).await;
                rest(&mut random, 100, 700).await;
            }
        };
        let network = async {
            let (mut random, mut deck) = (Rng::new(!seed), Deck::new(&NETWORK, &self.kinds));
            while let Some(kind) = self.next(&mut deck, &mut random) {
                self.disturb(kind, &mut random).await;
                rest(&mut random, 300, 1500).await;
            }
        };
        let admin = async {
            let (mut random, mut deck) = (Rng::new(seed << 1), Deck::new(&ADMIN, &self.kinds));
            while let Some(kind) = self.next(&mut deck, &mut random) {
                match kind {
                    Kind::Trim => self.trim(&mut random).await,
                    _ => self.swap(&mut random).await,
                }
                rest(&mut random, 500, 2500).await;
            }
        };
        tokio::join!(processes, network, admin);
        self.nodes.network.heal_all();
    }

    fn next(&self, deck: &mut Deck, random: &mut Rng) -> Option<Kind> {
        (Instant::now() < self.until).then(|| deck.draw(random)).flatten()
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().expect("nobody panics under it")
    }

    fn counts(&self, what: &'static str, count: u64) {
        *self.account().counts.entry(what).or_default() += count;
    }

    /// Finds what happened too rarely.
    pub(crate) fn floors(&self, seconds: u64) {
        for (_, what, least) in LEAST.iter().filter(|(kind, ..)| self.kinds.contains(kind)) {
            let (count, least) = (self.account().counts.get(what).copied(), least * seconds / 60);
            if count.unwrap_or(0) < least {
                self.finds(format!("floor: {} {what}, not {least}", count.unwrap_or(0)));
            }
        }
    }

    /// Tells what happened.
    pub(crate) fn tells(&self, what: &str) {
        println!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Tells what should not have happened.
    pub(crate) fn finds(&self, what: String) {
        self.tells(&format!("FOUND: {what}"));
        self.account().findings.push(what);
    }

    /// One fault of processes or disks, from its beginning to its end.
    async fn harm(&self, kind: Kind, random: &mut Rng) {
        let (victim, log) = self.victim(random).await;
        let victims: Vec<&Node> = match kind {
            Kind::KillAll | Kind::PowerAll => self.nodes.nodes.iter().map(|node| &**node).collect(),
            _ => vec![&*self.nodes.nodes[victim]],
        };
        self.account().events.push(Event { at: now(), kind, log });
        let whom = match &victims[..] {
            [one] => one.name(),
            _ => "all nodes".to_owned(),
        };
        let orders = log.map_or(String::new(), |log| format!(", which sequenced log {log}"));
        let outcome = match kind {
            Kind::Pause => self.pause(victims[0], random).await,
            Kind::Full => self.full(victims[0], random).await,
            _ => self.crash(kind, &victims, random).await,
        };
        match outcome {
            Ok(how) => self.tells(&format!("{kind:?}: {whom}{orders}: {how}")),
            Err(why) => self.finds(format!("{kind:?}: {whom}{orders}: {why}")),
        }
    }

    /// A node, in two of three cases the one that sequences a log, and that log.
    async fn victim(&self, random: &mut Rng) -> (usize, Option<usize>) {
        let (log, node) =
            (random.below(self.logs.len() as u64), random.below(self.nodes.nodes.len() as u64));
        let any = (node as usize, None);
        if !random.chance(66) {
            return any;
        }
        let status = server::status(&self.logs[log as usize].0);
        let Ok(Ok(rows)) = tokio::time::timeout(STATUS_MAX, status).await else { return any };
        let active = rows.last().and_then(|(_, active)| active.as_ref());
        active.map_or(any, |active| (active.sequencer as usize - 1, Some(log as usize)))
    }

    /// SIGKILL or power loss, some time without, and a start.
    async fn crash(
        &self,
        kind: Kind,
        victims: &[&Node],
        random: &mut Rng,
    ) -> Result<String, String> {
        let power = matches!(kind, Kind::Power | Kind::PowerAll);
        let counted = match power {
            true => "power_losses",
            false => "kills",
        };
        self.counts(counted, victims.len() as u64);
        if power {
            for victim in victims {
                victim.volume.power_off()?;
            }
        }
        let killed = join_all(victims.iter().map(|victim| victim.kill())).await;
        let down = rest(random, 50, 1000).await;
        if power {
            for victim in victims {
                victim.volume.power_on().await?;
            }
        }
        let started = join_all(victims.iter().map(|victim| victim.start())).await;
        let took = started.into_iter().collect::<Result<Vec<_>, _>>()?;
        let took: Vec<u64> = took.iter().map(|took| took.as_millis() as u64).collect();
        self.account().starts_ms.extend(&took);
        // Whoever met a disk without power had to end: that is in order.
        if !power {
            killed.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        let most = took.into_iter().max().unwrap_or(0);
        Ok(format!("down {} ms, up again after {most} ms", down.as_millis()))
    }

    /// SIGSTOP for longer than the others wait, and SIGCONT.
    async fn pause(&self, victim: &Node, random: &mut Rng) -> Result<String, String> {
        self.counts("pauses", 1);
        victim.signal(Signal::STOP).await?;
        let least = SUSPECT_AFTER.as_millis() as u64;
        let paused = rest(random, least, 3 * least).await;
        victim.signal(Signal::CONT).await?;
        Ok(format!("stopped for {} ms", paused.as_millis()))
    }

    /// A disk without room, and room again.
    async fn full(&self, victim: &Node, random: &mut Rng) -> Result<String, String> {
        self.counts("full_disks", 1);
        victim.volume.fill()?;
        let full = rest(random, 500, 1500).await;
        victim.volume.empty()?;
        Ok(format!("no room for {} ms", full.as_millis()))
    }

    /// One fault of the network, from its beginning to its end.
    async fn disturb(&self, kind: Kind, random: &mut Rng) {
        let (what, mut ways) = self.ways(random);
        let (fault, counted) = match kind {
            Kind::Cut => (Fault::Cut, "cuts"),
            Kind::Stall => (Fault::Stall, "stalls"),
            Kind::Delay => (Fault::Delay(Duration::from_millis(10 + random.below(150))), "delays"),
            _ => (Fault::Vanish, "half_open"),
        };
        // A cut ends connections, so it has no direction; all others may have one.
        let one_way = fault != Fault::Cut && random.chance(60);
        if one_way {
            ways = ways.chunks(2).map(|both| both[usize::from(random.chance(50))]).collect();
        }
        self.counts(counted, 1);
        self.account().events.push(Event { at: now(), kind, log: None });
        self.nodes.network.fail(&ways, fault);
        let held = rest(random, 300, 2500).await;
        self.nodes.network.heal(&ways);
        let one_way = if one_way { ", one way" } else { "" };
        self.tells(&format!("{fault:?}: {what}{one_way}, for {} ms", held.as_millis()));
    }

    /// Between whom, in words and as directions, the two of each pair side by side.
    fn ways(&self, random: &mut Rng) -> (String, Vec<(Party, Party)>) {
        let count = self.nodes.nodes.len() as u64;
        let victim = random.below(count);
        let other = (victim + 1 + random.below(count - 1)) % count;
        let name = |node: u64| self.nodes.nodes[node as usize].name();
        let (one, two) = (Party::Node(victim as usize), Party::Node(other as usize));
        let others = (0..count as usize).map(Party::Node).filter(|party| *party != one);
        let (what, with): (String, Vec<Party>) = match random.below(4) {
            0 => {
                (format!("{} and everybody", name(victim)), others.chain([Party::Client]).collect())
            }
            // It sees clients, and no LogServer but its own; and the reverse.
            1 => (format!("{} and the other nodes", name(victim)), others.collect()),
            2 => (format!("{} and clients", name(victim)), vec![Party::Client]),
            _ => (format!("{} and {}", name(victim), name(other)), vec![two]),
        };
        (what, with.into_iter().flat_map(|with| [(one, with), (with, one)]).collect())
    }

    /// Another native loglet for a log, sometimes wanted by two at once.
    async fn swap(&self, random: &mut Rng) {
        let log = random.below(self.logs.len() as u64) as usize;
        let mut sizes = vec!["native:3", "native:3", "native:3", "native:1"];
        if self.nodes.nodes.len() >= 5 {
            sizes.push("native:5");
        }
        let wanted = sizes[random.below(sizes.len() as u64) as usize];
        let [one, two] = &self.logs[log].1;
        let extend = async |log: &VirtualLog| {
            // Against the newest chain: mending changes it all the time.
            let extended = async {
                log.chain().await?;
                log.reconfig_extend(wanted, None).await
            };
            tokio::time::timeout(CALL_MAX, extended).await
        };
        self.account().events.push(Event { at: now(), kind: Kind::Swap, log: None });
        let racers = if random.chance(30) { vec![one, two] } else { vec![one] };
        let outcomes = join_all(racers.into_iter().map(extend)).await;
        for outcome in outcomes {
            match outcome {
                Ok(Ok(chain)) => {
                    self.counts("reconfigurations", 1);
                    let count = chain.segments.len();
                    self.tells(&format!("Swap: log {log} goes on with {wanted}, segment {count}"));
                }
                Ok(Err(error)) => self.refused("Swap", log, &error),
                Err(_) => self.counts("reconfigurations_refused", 1),
            }
        }
    }

    /// A reconfiguration or a trim that met trouble, or another one.
    fn refused(&self, what: &str, log: usize, error: &virtuallog::Error) {
        self.counts("reconfigurations_refused", 1);
        // A disk that is full just then refuses a new loglet, and says why.
        let excused =
            [ErrorCode::Conflict, ErrorCode::Unavailable, ErrorCode::Deadline, ErrorCode::DiskFull];
        match excused.contains(&error.code()) {
            true => self.tells(&format!("{what}: log {log}: {error}")),
            false => self.finds(format!("{what}: log {log}: {error:?}")),
        }
    }

    /// Takes away what is old, of every second log: the others are there to be read from the start.
    async fn trim(&self, random: &mut Rng) {
        let log = random.below(self.logs.len() as u64) as usize / 2 * 2 + 1;
        let Some((_, [handle, _])) = self.logs.get(log) else { return };
        let invoked = now();
        let trimmed = async {
            let tail = handle.check_tail().await?.position;
            handle.prefix_trim(LogPos(tail.0.saturating_sub(KEPT))).await
        };
        match tokio::time::timeout(CALL_MAX, trimmed).await {
            Ok(Ok(trimmed)) => {
                self.counts("trims", 1);
                self.account().trims.push((log, invoked, now(), trimmed.effective.0));
            }
            Ok(Err(error)) => self.refused("Trim", log, &error),
            Err(_) => self.counts("reconfigurations_refused", 1),
        }
    }
}

/// Lets some time pass, from `least` to `most` milliseconds.
async fn rest(random: &mut Rng, least: u64, most: u64) -> Duration {
    let time = Duration::from_millis(least + random.below(most - least));
    tokio::time::sleep(time).await;
    time
}
