//! How long readers are held up at a time, by nothing, by issues, by issues for which the index grows, and by a revoke of a
//! subject with as many tokens as there are; and how long one step of what the sequencer does takes.
//! `JETON_BENCH_TOKENS=10000000` for other sizes than a million.
//!
//! One thread reads, it validates frames of 64 without a pause; another does what the row says, a step at a time: a command
//! of 256 tokens (made, decided, sealed and published), then a step of growth, reclaiming or marking. A sequencer's turn is
//! several commands.
//!
//! A machine that is shared stops threads when it likes, in all rows. What took too long is therefore counted twice: by the
//! clock, and without the time in which the thread was ready to run and did not. That is taken from the thread's own clock,
//! which stands still meanwhile, also for what the host of a virtual machine gives to others (`steal` in proc(5)). A thread
//! that slept of itself, for a lock say, is not excused.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jeton_core::batch::ChainEnd;
use jeton_core::check::{Check, Checks};
use jeton_core::command::{Command, RevokeTarget};
use jeton_core::numbers::Partition;
use jeton_core::sequencer::{FIRST_TENANT, Sequencer};
use jeton_core::state::{State, StateConfig};
use jeton_core::token::Token;
use jeton_core::view::View;
use memmap2::{Advice, MmapMut};

#[path = "fill.rs"]
mod fill;

use fill::{ADMIN, LOG, NOW, Over, Random, Size, decided, issue, setting};

/// Tokens of a frame, and of an issue.
const FRAME: usize = 64;
const ISSUE: usize = 256;
/// How long the reader is alone, and how long the other thread sleeps at a time then.
const ALONE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(1);
/// What is counted: frames, and steps, that took longer.
const READER_MAX: Duration = Duration::from_millis(1);
const SEQUENCER_MAX: Duration = Duration::from_millis(10);

/// Times of the same thing, in nanoseconds. Made and noted by the thread that they are of.
struct Times {
    by_the_clock: Histogram<u64>,
    limit: Duration,
    /// The longest of the thread's own, and how many of those were beyond the limit.
    own_longest: Duration,
    own_beyond: u64,
    ran: Duration,
    slept: u64,
}

impl Times {
    fn new(limit: Duration) -> Self {
        let by_the_clock = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        let (own_longest, own_beyond) = (Duration::ZERO, 0);
        Self { by_the_clock, limit, own_longest, own_beyond, ran: ran(), slept: slept() }
    }

    fn note(&mut self, took: Duration) {
        self.by_the_clock.saturating_record(took.as_nanos() as u64);
        let ran_before = std::mem::replace(&mut self.ran, ran());
        let mut own = took.min(self.ran.saturating_sub(ran_before));
        if took > self.limit && std::mem::replace(&mut self.slept, slept()) != self.slept {
            own = took;
        }
        self.own_longest = self.own_longest.max(own);
        self.own_beyond += u64::from(own > self.limit);
    }

    /// How many, the middle, two high quantiles, the longest, how many took longer than the limit, and both without what the
    /// machine did.
    fn cells(&self) -> String {
        let us = |ns: u64| ns as f64 / 1e3;
        let times = &self.by_the_clock;
        let beyond = times.len() - times.count_between(0, self.limit.as_nanos() as u64);
        let own_longest = self.own_longest.as_nanos() as u64;
        format!(
            "{} | {:.1} | {:.1} | {:.1} | {:.0} | {beyond} | {:.0} | {}",
            times.len(),
            us(times.value_at_quantile(0.5)),
            us(times.value_at_quantile(0.99)),
            us(times.value_at_quantile(0.9999)),
            us(times.max()),
            us(own_longest),
            self.own_beyond,
        )
    }
}

/// How long this thread has run.
fn ran() -> Duration {
    let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(ran.tv_sec as u64, ran.tv_nsec as u32)
}

/// How many times this thread went to sleep of itself.
fn slept() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    slept.and_then(|slept| slept.trim().parse().ok()).unwrap_or(0)
}

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// The machine's limit: first touches of so many bytes in huge pages, by a thread that does nothing else.
fn first_touches(bytes: usize) -> Times {
    let mut memory = MmapMut::map_anon(bytes.next_multiple_of(HUGE_PAGE)).expect("memory");
    let _ = memory.advise(Advice::HugePage); // without, they are small pages, and soon there
    let mut times = Times::new(SEQUENCER_MAX);
    for page in memory.chunks_mut(HUGE_PAGE) {
        let began = Instant::now();
        page[0] = 1;
        times.note(began.elapsed());
    }
    times
}

/// An engine without threads, and what it holds.
struct Engine {
    sequencer: Sequencer<()>,
    view: View,
    tokens: Vec<[u8; 32]>,
    random: Random,
    size: Size,
    issued: usize,
}

impl Engine {
    /// Filled with `size` in an index that is made for so many.
    fn new(size: Size, tokens_initial: usize) -> Self {
        let tokens_max = 8 * size.tokens as u32;
        let config = StateConfig { tokens_initial, tokens_max, ..StateConfig::default() };
        let (state, reader) = State::new(LOG, Partition(0), config).expect("memory");
        let view = View::new(reader, state.registry().clone());
        let mut sequencer = Sequencer::new(state, ChainEnd::genesis(LOG, Partition(0)));
        sequencer.handle_creation(ADMIN, NOW);
        let mut engine = Self { sequencer, view, tokens: Vec::new(), random: Random(7), size, issued: 0 };
        while engine.tokens.len() < size.tokens {
            let issued = engine.issue();
            engine.tokens.extend(issued.iter().map(Token::to_bytes));
            engine.work();
        }
        while engine.work() {}
        engine
    }

    fn issue(&mut self) -> Vec<Token> {
        let command = issue(self.issued, ISSUE, self.size);
        self.issued += 1;
        decided(&mut self.sequencer, &mut self.random, command)
    }

    /// A step of what goes on in the background; whether there was something.
    fn work(&mut self) -> bool {
        let has_work = self.sequencer.has_work();
        if has_work {
            self.sequencer.handle_work(NOW);
        }
        has_work
    }

    /// Does `writes` beside a reader, step by step until it says that it is over; the reader's frames and the steps.
    fn beside_a_reader(&mut self, mut writes: impl FnMut(&mut Self) -> bool) -> [Times; 2] {
        let (view, tokens, is_over) = (self.view.clone(), self.tokens.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(&view, &tokens, &is_over));
            let over = Over(&is_over);
            let mut steps = Times::new(SEQUENCER_MAX);
            loop {
                let began = Instant::now();
                let goes_on = writes(self);
                steps.note(began.elapsed());
                if !goes_on {
                    break;
                }
            }
            drop(over);
            [reading.join().expect("it ends"), steps]
        })
    }
}

fn read(view: &View, tokens: &[[u8; 32]], is_over: &AtomicBool) -> Times {
    let (caller, live) = (view.registry().caller(ADMIN), Check::default());
    let (mut times, mut random, mut answers) = (Times::new(READER_MAX), Random(3), Vec::with_capacity(FRAME));
    while !is_over.load(Relaxed) {
        let frame: [[u8; 32]; FRAME] =
            std::array::from_fn(|_| tokens[(random.next() % tokens.len() as u64) as usize]);
        answers.clear();
        let began = Instant::now();
        view.validate(&caller, NOW, &frame, Checks::Same(&live), &mut answers);
        times.note(began.elapsed());
    }
    times
}

fn row(name: &str, [reader, steps]: &[Times; 2]) {
    println!("| {name} | {} | {} |", reader.cells(), steps.cells());
}

fn main() {
    let count = setting("JETON_BENCH_TOKENS", 1_000_000).max(ISSUE);
    let size = Size { tokens: count, subjects: count.div_ceil(10), claim_sets: 1_000 };
    let each = "n | p50 us | p99 us | p99.99 us | longest us";
    println!("{count} live tokens, frames of {FRAME}, issues of {ISSUE}\n");
    let own = "longest of its own us | of its own";
    println!("| | reader: {each} | beyond 1 ms | {own} | steps beside it: {each} | beyond 10 ms | {own} |");
    println!("|{}", "---|".repeat(17));

    let mut roomy = Engine::new(size, 5 * count);
    let mut naps = ALONE.as_millis() / NAP.as_millis();
    let alone = roomy.beside_a_reader(|_| {
        std::thread::sleep(NAP);
        naps -= 1;
        naps > 0
    });
    row("reader alone (the other thread sleeps)", &alone);
    let mut left = 3 * count / ISSUE;
    let mut issues = |engine: &mut Engine| {
        engine.issue();
        engine.work();
        left -= 1;
        left > 0
    };
    row("issues of three times as many", &roomy.beside_a_reader(&mut issues));
    drop(roomy);

    let mut growing = Engine::new(size, count);
    let (mut left, mut grew) = (3 * count / ISSUE, 0_u32);
    let rows = growing.beside_a_reader(|engine| {
        engine.issue();
        grew += u32::from(engine.sequencer.state().is_growing());
        engine.work();
        left -= 1;
        left > 0
    });
    row(&format!("the same, the index growing in {grew} of the steps"), &rows);
    drop(growing);

    let mut one = Engine::new(Size { subjects: 1, ..size }, 2 * count);
    let subject = "subject 0".parse().expect("a name");
    let mut revoke = Some(RevokeTarget::Subject { tenant: FIRST_TENANT.parse().expect("a name"), subject });
    let (mut began, mut took) = (Instant::now(), Duration::ZERO);
    let rows = one.beside_a_reader(|engine| match revoke.take() {
        Some(target) => {
            began = Instant::now();
            decided(&mut engine.sequencer, &mut engine.random, Command::Revoke(target));
            true
        }
        None => {
            let goes_on = engine.work();
            took = began.elapsed();
            goes_on
        }
    });
    row("a revoke of the subject of all tokens", &rows);
    println!("\nThe revoke's tokens were all marked after {:.2} s.", took.as_secs_f64());
    drop(one);
    println!(
        "The machine's limit: the first touch of a huge page, one after the other, as the issues' records need them: {}",
        first_touches(3 * count * 64).cells()
    );
}
