//! Due times are those of the rate, for every schedule, however late they are asked for.

use proptest::prelude::*;

use super::*;
use crate::workload::Ramp;

const MICRO: Duration = Duration::from_micros(1);

fn schedules() -> impl Strategy<Value = Schedule> {
    let rate = 1..2_000_000_u32;
    prop_oneof![
        rate.clone().prop_map(Schedule::Fixed),
        (rate.clone(), rate.clone()).prop_map(|(from, to)| Schedule::Ramp(Ramp { from, to })),
        prop::collection::vec(rate, 1..8).prop_map(Schedule::Steps),
    ]
}

proptest! {
    #[test]
    fn every_second_of_a_fixed_rate_holds_as_many_as_it_says(rate in 1..5_000_000_u32, second in 0..1_000_u64) {
        let profile = Profile::new(&Schedule::Fixed(rate), Duration::from_secs(10)).unwrap();
        let first = profile.time_of(second as f64 * f64::from(rate));
        prop_assert!(first.abs_diff(Duration::from_secs(second)) < MICRO, "{first:?}");
    }

    #[test]
    fn due_times_never_go_back(schedule in schedules(), seconds in 1..100_u64, at in 0.0..1e6_f64, by in 0.0..1e3_f64) {
        let profile = Profile::new(&schedule, Duration::from_secs(seconds)).unwrap();
        prop_assert!(profile.time_of(at) <= profile.time_of(at + by));
    }

    #[test]
    fn a_run_holds_the_integral_of_its_rate(schedule in schedules(), seconds in 1..100_u64) {
        let profile = Profile::new(&schedule, Duration::from_secs(seconds)).unwrap();
        let mean = match &schedule {
            Schedule::Closed => unreachable!(),
            Schedule::Fixed(rate) => f64::from(*rate),
            Schedule::Ramp(ramp) => (f64::from(ramp.from) + f64::from(ramp.to)) / 2.0,
            Schedule::Steps(rates) => rates.iter().map(|rate| f64::from(*rate)).sum::<f64>() / rates.len() as f64,
        };
        let last = profile.time_of(mean * seconds as f64);
        prop_assert!(last.abs_diff(Duration::from_secs(seconds)) < MICRO, "{last:?} of {seconds} s");
    }

    #[test]
    fn the_integral_and_its_inverse_agree(schedule in schedules(), seconds in 1..100_u64, at in 0.0..1.2_f64) {
        let profile = Profile::new(&schedule, Duration::from_secs(seconds)).unwrap();
        let time = Duration::from_secs_f64(at * seconds as f64);
        let back = profile.time_of(profile.requests_by(time));
        prop_assert!(back.abs_diff(time) < Duration::from_micros(10), "{time:?} came back as {back:?}");
    }

    #[test]
    fn what_is_left_is_what_was_due_and_not_given_out(
        schedule in schedules(), taken in 0..50_usize, groups in 1..100_u64,
    ) {
        let (began, whole) = (Instant::now(), Duration::from_millis(20));
        let profile = Profile::new(&schedule, whole).unwrap();
        let mut times = DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1);
        for _ in 0..taken {
            times.next_due(began + whole);
        }
        let left: u64 = times.left(began + whole, groups).map(|(_, count)| count).sum();
        let mut one_by_one = 0;
        let last = began + whole - Duration::from_nanos(1);
        while times.next_due(last).is_some() {
            one_by_one += 1;
        }
        prop_assert!(left.abs_diff(one_by_one) <= 1, "{left}, one by one {one_by_one}");
    }

    #[test]
    fn workers_share_a_schedule_without_a_gap_or_a_repetition(schedule in schedules(), workers in 1..9_u16) {
        let (began, profile) = (Instant::now(), Profile::new(&schedule, Duration::from_secs(9)).unwrap());
        let mut all: Vec<Instant> = (0..workers)
            .flat_map(|worker| {
                let mut times =
                    DueTimes::new(Pace::Profile(profile.clone()), began, (worker, workers), Arrivals::Constant, 1);
                (0..20).map(|_| times.next_due(began + Duration::from_secs(1_000)).unwrap()).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        let expected: Vec<Instant> =
            (0..all.len()).map(|number| began + profile.time_of(number as f64)).collect();
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn what_is_due_is_given_out_once_and_in_order_however_late_it_is_asked_for() {
    let began = Instant::now();
    let profile = Profile::new(&Schedule::Fixed(1_000), Duration::from_secs(1)).unwrap();
    let mut times = DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1);
    assert_eq!(times.next_due(began), Some(began));
    assert_eq!(times.next_due(began), None);
    let late = began + Duration::from_millis(10);
    let due: Vec<Instant> = std::iter::from_fn(|| times.next_due(late)).collect();
    assert_eq!(due.len(), 10);
    assert!(due.is_sorted() && times.peek() > late);
}

#[test]
fn random_arrivals_have_the_rate_and_the_spread_of_poisson() {
    let began = Instant::now();
    let profile = Profile::new(&Schedule::Fixed(1_000), Duration::from_secs(1)).unwrap();
    let mut times = DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Poisson, 7);
    let end = began + Duration::from_secs(100);
    let mut seconds = vec![0_u32; 101];
    while let Some(due) = times.next_due(end) {
        seconds[(due - began).as_secs() as usize] += 1;
    }
    let seconds = &seconds[..100];
    let mean = f64::from(seconds.iter().sum::<u32>()) / 100.0;
    let variance = seconds.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / 99.0;
    assert!((mean - 1_000.0).abs() < 20.0, "{mean}");
    // Of a Poisson process both are the same; the bounds are five standard errors wide.
    assert!((0.3..2.0).contains(&(variance / mean)), "{variance} of {mean}");
}

#[test]
fn a_trace_is_asked_as_it_was() {
    let text = r#"{"at_ms":5,"kind":"validate","tokens":3}
        {"at_ms":5,"kind":"renew"}
        {"at_ms":25,"kind":"issue"}"#;
    let (trace, began) = (Arc::new(Trace::parse(text).unwrap()), Instant::now());
    let mut times = DueTimes::new(Pace::Trace(trace), began, (0, 1), Arrivals::Constant, 1);
    assert_eq!(times.next_due(began), Some(began));
    assert_eq!(times.traced().map(|request| request.tokens), Some(3));
    assert_eq!(times.next_due(began), Some(began));
    assert_eq!(times.next_due(began + Duration::from_millis(19)), None);
    let left: Vec<(Instant, u64)> = times.left(began + Duration::from_secs(1), 10).collect();
    assert_eq!(left, [(began + Duration::from_millis(20), 1)]);
    assert!(times.next_due(began + Duration::from_millis(20)).is_some());
    assert_eq!(times.next_due(began + Duration::from_secs(3_600)), None);
}
