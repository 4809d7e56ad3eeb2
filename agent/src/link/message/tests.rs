use proptest::{collection::btree_map, prelude::*};

use crate::{
    evidence::{Backlog, InstanceReport},
    placement::State,
};

use super::*;

fn instance() -> impl Strategy<Value = InstanceReport> {
    let holder = proptest::option::of("[a-z0-9][a-z0-9-]{0,31}");
    let state = prop::sample::select(vec![State::Active, State::Standby, State::Disabled]);
    let texts = ("\\PC{0,60}", "\\PC{0,60}");
    (any::<bool>(), any::<u64>(), holder, state, any::<u64>(), texts).prop_map(
        |(available, epoch, holder, state, since, (why, reason))| InstanceReport {
            available,
            epoch,
            holder,
            state,
            why,
            since,
            reason,
        },
    )
}

fn message() -> impl Strategy<Value = ReportMessage> {
    let instances = btree_map("[a-z0-9][a-z0-9-]{0,31}", instance(), 0..8);
    let contacts = prop::collection::btree_set("[a-z0-9][a-z0-9-]{0,31}", 0..4);
    let backlog = any::<(u64, u64, bool)>().prop_map(|(rows, lag, forgotten)| Backlog { rows, lag, forgotten });
    let backlogs = btree_map("[a-z0-9][a-z0-9-]{0,31}", backlog, 0..4);
    let report = (any::<bool>(), contacts, backlogs, instances)
        .prop_map(|(drained, contacts, backlogs, instances)| Report { drained, contacts, backlogs, instances });
    ("[a-z][a-z0-9-]{0,31}", any::<u64>(), any::<u32>(), report).prop_map(|(site, number, period, report)| {
        ReportMessage { site, number, period: Duration::from_millis(period.into()), report }
    })
}

fn sample() -> ReportMessage {
    let instance = InstanceReport {
        available: true,
        epoch: 7,
        holder: Some("west".to_owned()),
        state: State::Standby,
        why: "west holds it since epoch 7".to_owned(),
        since: 1_800_000_000,
        reason: "2 of 2 backends answer".to_owned(),
    };
    ReportMessage {
        site: "east".to_owned(),
        number: 1,
        period: Duration::from_millis(500),
        report: Report {
            drained: false,
            contacts: ["west".to_owned()].into(),
            backlogs: [("west".to_owned(), Backlog { rows: 3, lag: 40, forgotten: false })].into(),
            instances: [("www".to_owned(), instance)].into(),
        },
    }
}

fn sample_in_contact_with(sites: usize) -> ReportMessage {
    let mut message = sample();
    message.report.contacts = (0..sites).map(|i| format!("s{i}")).collect();
    message
}

/// `sample()` after `change`, encoded without the sender's checks.
fn sent(change: impl FnOnce(&mut ReportMessage, &mut InstanceReport)) -> Vec<u8> {
    let mut message = sample();
    let mut instance = message.report.instances["www"].clone();
    change(&mut message, &mut instance);
    message.report.instances.insert("www".to_owned(), instance);
    encode(&message)
}

proptest! {
    #[test]
    fn a_report_arrives_as_it_was_sent(message in message()) {
        let bytes = encode_report(message.clone()).unwrap();
        prop_assert_eq!(decode_report(&bytes).unwrap(), message);
    }

    #[test]
    fn a_heartbeat_arrives_as_it_was_sent(sequence: u64, report: u64, clock: i64) {
        let heartbeat = Heartbeat { sequence, report, clock };
        prop_assert_eq!(decode_heartbeat(&encode_heartbeat(&heartbeat)).unwrap(), heartbeat);
    }

    #[test]
    fn random_bytes_are_refused_or_read_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let versioned = [&[VERSION], &bytes[..]].concat();
        for bytes in [&bytes, &versioned] {
            let _ = decode_heartbeat(bytes);
            let _ = decode_report(bytes);
            let _ = decode_opening(bytes);
            let _ = decode_request(bytes);
            let _ = decode_response(bytes);
        }
    }

    #[test]
    fn requests_and_responses_arrive_as_they_were_sent_and_fit(
        resource in "[a-z0-9][a-z0-9-]{0,31}", epoch in 0..=MAX_EPOCH, flag: bool, count: u32, times: (u32, u32), reason in "\\PC{0,80}",
    ) {
        let take = Request::Take { resource: resource.clone(), epoch, force: flag, as_configured: !flag };
        for request in [take, Request::Drain(flag), Request::BeforeFence, Request::Fence(count)] {
            let bytes = encode_request(&request).unwrap();
            prop_assert!(bytes.len() <= MAX_REQUEST);
            prop_assert_eq!(decode_opening(&bytes[..OPENING]), Ok(Purpose::Request));
            prop_assert_eq!(decode_request(&bytes).unwrap(), request);
        }
        let (stored, published) = (Duration::from_micros(times.0.into()), Duration::from_micros(times.1.into()));
        let taken = Response::Taken { epoch, stored, published, caught_up: None, behind: vec![resource] };
        let before = Response::BeforeFence { count, agreed: flag.then_some(count) };
        for response in [taken, Response::Holds(epoch), Response::Drained, before, Response::Refused(reason)] {
            let read = decode_response(&encode_response(response.clone())).unwrap();
            match (read, response) {
                (Response::Refused(read), Response::Refused(sent)) => prop_assert!(sent.starts_with(&read)),
                (read, sent) => prop_assert_eq!(read, sent),
            }
        }
    }

    #[test]
    fn what_is_read_from_changed_bytes_is_still_within_bounds(
        message in message(), at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_report(message).unwrap();
        let i = at.index(bytes.len());
        bytes[i] = to;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(message) = decode_report(bytes) {
                prop_assert!(encode_report(message.clone()).is_ok());
                prop_assert_eq!(decode_report(&encode(&message)), Ok(message));
            }
        }
    }
}

#[test]
fn every_cut_of_a_message_is_refused() {
    let bytes = encode_report(sample()).unwrap();
    for length in 0..bytes.len() {
        assert_eq!(decode_report(&bytes[..length]), Err(MessageError::Malformed("report")), "{length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode_report(&longer), Err(MessageError::Malformed("report")));
}

#[test]
fn every_cut_of_a_request_or_response_is_refused_and_more_than_one_too() {
    let request = encode_request(&Request::Take {
        resource: "orders".to_owned(),
        epoch: 300,
        force: false,
        as_configured: false,
    })
    .unwrap();
    let response = encode_response(Response::Refused("no".to_owned()));
    for length in 0..request.len() {
        assert_eq!(decode_request(&request[..length]), Err(MessageError::Malformed("request")), "{length}");
    }
    for length in 0..response.len() {
        assert_eq!(decode_response(&response[..length]), Err(MessageError::Malformed("response")), "{length}");
    }
    assert_eq!(decode_request(&[&request[..], &[0]].concat()), Err(MessageError::Malformed("request")));
    assert_eq!(decode_response(&[&response[..], &[0]].concat()), Err(MessageError::Malformed("response")));
    assert_eq!(decode_request(&[VERSION; MAX_REQUEST + 1]), Err(MessageError::TooLong));
    assert_eq!(decode_response(&[VERSION; MAX_RESPONSE + 1]), Err(MessageError::TooLong));
}

#[test]
fn requests_and_responses_that_break_the_rules_are_refused() {
    let take = |resource: &str, epoch| {
        encode(&(
            Purpose::Request,
            Request::Take { resource: resource.to_owned(), epoch, force: false, as_configured: false },
        ))
    };
    for name in ["", "Orders", "or ders", "or\u{1b}[2Jders", &"a".repeat(MAX_NAME + 1)] {
        assert!(matches!(decode_request(&take(name, 1)), Err(MessageError::Name(_))), "{name:?}");
    }
    let over = MAX_EPOCH + 1;
    assert_eq!(decode_request(&take("orders", over)), Err(MessageError::Epoch(over)));
    assert_eq!(decode_response(&encode(&Response::Holds(over))), Err(MessageError::Epoch(over)));
    let refused = encode(&Response::Refused("\u{1b}[2J".to_owned()));
    assert_eq!(decode_response(&refused), Err(MessageError::Reason("its refusal".to_owned())));
    let long = Response::Refused("é\n".repeat(MAX_REASON));
    assert!(encode_response(long.clone()).len() <= MAX_RESPONSE);
    assert!(decode_response(&encode_response(long)).is_ok(), "cut and cleaned before it is sent");
}

#[test]
fn a_stream_says_in_its_first_bytes_what_it_is_for() {
    for (topic, purpose) in [(Topic::Changes, Purpose::Changes), (Topic::Comparison, Purpose::Comparison)] {
        assert_eq!(encode_frames(topic).len(), OPENING);
        assert_eq!(decode_opening(&encode_frames(topic)), Ok(purpose));
    }
    assert_eq!(decode_opening(&[VERSION - 1, 1]), Err(MessageError::Version(VERSION - 1)));
    let malformed = Err(MessageError::Malformed("opening of a stream"));
    for bytes in [&[][..], &[VERSION], &[VERSION, 3], &[VERSION, 1, 0]] {
        assert_eq!(decode_opening(bytes), malformed, "{bytes:?}");
    }
    let frames = encode(&(Purpose::Changes, Request::Drain(true)));
    assert_eq!(decode_request(&frames), Err(MessageError::Malformed("request")));
}

#[test]
fn another_version_is_named() {
    let mut bytes = encode_report(sample()).unwrap();
    bytes[0] = VERSION + 1;
    let error = decode_report(&bytes).unwrap_err();
    assert_eq!(error, MessageError::Version(VERSION + 1));
    assert!(error.to_string().contains("same release"), "{error}");
}

#[test]
fn names_and_reasons_that_break_the_rules_are_refused() {
    let long = "a".repeat(MAX_NAME + 1);
    for name in ["", "-east", "East", "ea st", "ea\u{1b}[2Jst", "östlich", &long] {
        let bytes = sent(|message, _| message.site = name.to_owned());
        assert!(matches!(decode_report(&bytes), Err(MessageError::Name(_))), "{name:?}");
        let bytes = sent(|message, _| message.report.contacts = [name.to_owned()].into());
        assert!(matches!(decode_report(&bytes), Err(MessageError::Name(_))), "{name:?}");
        let bytes = sent(|_, instance| instance.holder = Some(name.to_owned()));
        assert!(matches!(decode_report(&bytes), Err(MessageError::Name(_))), "{name:?}");
        let bytes = sent(|message, instance| {
            message.report.instances.insert(name.to_owned(), instance.clone());
        });
        assert!(matches!(decode_report(&bytes), Err(MessageError::Name(_))), "{name:?}");
    }
    for reason in ["two\nlines".to_owned(), "\u{1b}[2J".to_owned(), "x".repeat(MAX_REASON + 1)] {
        let bytes = sent(|_, instance| instance.reason = reason.clone());
        assert_eq!(decode_report(&bytes), Err(MessageError::Reason("www".to_owned())), "{reason:?}");
        let bytes = sent(|_, instance| instance.why = reason.clone());
        assert_eq!(decode_report(&bytes), Err(MessageError::Reason("www".to_owned())), "{reason:?}");
    }
}

#[test]
fn the_largest_report_fits_and_one_instance_more_is_refused() {
    let mut message = sample();
    let instance = InstanceReport {
        available: true,
        epoch: u64::MAX,
        holder: Some("h".repeat(MAX_NAME)),
        state: State::Disabled,
        why: "é\n".repeat(MAX_REASON),
        since: u64::MAX,
        reason: "é\n".repeat(MAX_REASON),
    };
    let name = |i: usize| format!("{i:032}");
    message.report.contacts = (0..MAX_SITES).map(name).collect();
    let backlog = Backlog { rows: u64::MAX, lag: u64::MAX, forgotten: true };
    message.report.backlogs = (0..MAX_SITES).map(|i| (name(i), backlog)).collect();
    message.site = "s".repeat(MAX_NAME);
    message.number = u64::MAX;
    message.report.instances = (0..MAX_INSTANCES).map(|i| (name(i), instance.clone())).collect();
    let bytes = encode_report(message.clone()).unwrap();
    assert!(bytes.len() <= MAX_MESSAGE, "{}", bytes.len());
    assert_eq!(decode_report(&bytes).unwrap().report.instances.len(), MAX_INSTANCES);

    message.report.contacts.insert("one-more".to_owned());
    assert_eq!(encode_report(message.clone()), Err(MessageError::Sites(MAX_SITES + 1)));
    assert_eq!(decode_report(&encode(&sample_in_contact_with(MAX_SITES + 1))), Err(MessageError::Sites(MAX_SITES + 1)));
    message.report.contacts.clear();
    message.report.backlogs.insert("one-more".to_owned(), backlog);
    assert_eq!(encode_report(message.clone()), Err(MessageError::Sites(MAX_SITES + 1)));
    message.report.backlogs.clear();
    message.report.instances.insert(name(MAX_INSTANCES), instance);
    let error = Err(MessageError::Instances(MAX_INSTANCES + 1));
    assert_eq!(encode_report(message.clone()), error);
    message.report.instances.values_mut().for_each(|instance| {
        instance.reason.clear();
        instance.why.clear();
    });
    assert_eq!(decode_report(&encode(&message)).map(|_| vec![]), error);
    assert_eq!(decode_report(&vec![VERSION; MAX_MESSAGE + 1]), Err(MessageError::TooLong));
}

#[test]
fn a_long_reason_is_cut_between_characters_and_cleaned_before_it_is_sent() {
    let mut message = sample();
    let reason = format!("a\tb{}", "é".repeat(MAX_REASON));
    message.report.instances.get_mut("www").unwrap().reason = reason;
    let read = decode_report(&encode_report(message).unwrap()).unwrap();
    let reason = &read.report.instances["www"].reason;
    assert!(reason.starts_with("a bé") && reason.len() == MAX_REASON - 1, "{reason}");
}
