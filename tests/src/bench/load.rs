//! Load from a number of clients, each of which calls again as soon as it is answered, in windows of
//! time. What is compared alternates window by window, so that whatever else the machine does falls
//! on both alike.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::statistics::micros;

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);

/// What one client does again and again.
pub(super) trait Call: Send + 'static {
    /// Does it once. Answers how much was done, where that is not one thing.
    fn call(&mut self) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// Puts back what a window's calls have taken, while nothing is measured.
    fn rest(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
}

/// How often and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    /// An odd number, so that there is one in the middle.
    pub(super) count: usize,
    pub(super) length: Duration,
}

/// What came of one window of load.
#[derive(Debug)]
pub(super) struct Window {
    done: u64,
    elapsed: Duration,
    /// In nanoseconds.
    latency: Histogram<u64>,
}

impl Window {
    fn new() -> anyhow::Result<Self> {
        let longest = u64::try_from(LONGEST.as_nanos())?;
        Ok(Self {
            done: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, longest, 3)?,
        })
    }

    /// How much was done a second.
    pub(super) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    /// Half of the calls took no longer, in microseconds.
    pub(super) fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// 99 % of the calls took no longer, in microseconds.
    pub(super) fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    fn quantile(&self, quantile: f64) -> f64 {
        micros(Duration::from_nanos(
            self.latency.value_at_quantile(quantile),
        ))
    }

    fn record(&mut self, latency: Duration, done: u64) {
        self.done += done;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanos);
    }

    fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.done += other.done;
        self.latency.add(&other.latency)?;
        Ok(())
    }
}

/// Lets all clients call for `length`, then finish the call that they are in. A failed call ends it.
pub(super) async fn window<C: Call>(
    clients: &mut Vec<C>,
    length: Duration,
) -> anyhow::Result<Window> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for client in clients.drain(..) {
        running.spawn(call_until(client, start + length));
    }
    let mut all = Window::new()?;
    while let Some(joined) = running.join_next().await {
        let (client, window) = joined??;
        all.merge(&window)?;
        clients.push(client);
    }
    all.elapsed = start.elapsed();
    rest(clients).await?;
    Ok(all)
}

async fn rest<C: Call>(clients: &mut Vec<C>) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for mut client in clients.drain(..) {
        running.spawn(async move { client.rest().await.map(|()| client) });
    }
    while let Some(joined) = running.join_next().await {
        clients.push(joined??);
    }
    Ok(())
}

async fn call_until<C: Call>(mut client: C, end: Instant) -> anyhow::Result<(C, Window)> {
    let mut window = Window::new()?;
    let mut before = Instant::now();
    while before < end {
        let done = client.call().await?;
        let after = Instant::now();
        window.record(after - before, done);
        before = after;
    }
    Ok((client, window))
}

/// Windows of a floor and of what is measured, in turns.
#[derive(Debug)]
pub(super) struct Pairs(Vec<(Window, Window)>);

/// A number of the floor and of what is measured, from one pair of windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) floor: f64,
    pub(super) value: f64,
}

impl Pairs {
    /// The pair of windows whose ratio is the median.
    pub(super) fn median(&self, number: impl Fn(&Window) -> f64) -> anyhow::Result<Pair> {
        let mut pairs: Vec<Pair> = self
            .0
            .iter()
            .map(|(floor, subject)| Pair {
                floor: number(floor),
                value: number(subject),
            })
            .collect();
        pairs.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let middle = pairs.get(pairs.len() / 2);
        middle.copied().context("nothing was measured")
    }
}

impl Pair {
    fn ratio(self) -> f64 {
        self.value / self.floor
    }
}

/// Lets the clients of the floor and of the subject call in turns, after a short window each that
/// is not counted.
pub(super) async fn alternate<F: Call, S: Call>(
    floor: &mut Vec<F>,
    subject: &mut Vec<S>,
    rounds: Rounds,
) -> anyhow::Result<Pairs> {
    let warm_up = rounds.length / 4;
    window(floor, warm_up).await?;
    window(subject, warm_up).await?;
    let mut pairs = Vec::with_capacity(rounds.count);
    for round in 0..rounds.count {
        // Each goes first every other time.
        let pair = if round % 2 == 0 {
            let of_floor = window(floor, rounds.length).await?;
            (of_floor, window(subject, rounds.length).await?)
        } else {
            let of_subject = window(subject, rounds.length).await?;
            (window(floor, rounds.length).await?, of_subject)
        };
        pairs.push(pair);
    }
    Ok(Pairs(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a fixed time, on paused time.
    struct Slow(Duration);

    impl Call for Slow {
        async fn call(&mut self) -> anyhow::Result<u64> {
            tokio::time::sleep(self.0).await;
            Ok(1)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rates_and_latencies_are_those_of_the_calls() {
        let mut floor = vec![
            Slow(Duration::from_millis(2)),
            Slow(Duration::from_millis(2)),
        ];
        let mut subject = vec![Slow(Duration::from_millis(5))];
        let rounds = Rounds {
            count: 3,
            length: Duration::from_secs(1),
        };
        let pairs = alternate(&mut floor, &mut subject, rounds).await.unwrap();
        let rate = pairs.median(Window::rate).unwrap();
        assert!((rate.floor - 1000.0).abs() < 5.0, "{rate:?}");
        assert!((rate.value - 200.0).abs() < 2.0, "{rate:?}");
        let p50 = pairs.median(Window::p50).unwrap();
        assert!((p50.floor - 2000.0).abs() < 5.0, "{p50:?}");
        assert!((p50.value - 5000.0).abs() < 10.0, "{p50:?}");
        assert_eq!((floor.len(), subject.len()), (2, 1));
    }
}
