//! What an operator does to a running site: overrides, explanations, new configurations.

use std::{fs, net::TcpStream, time::Duration};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use lab::{
    Lab, Options,
    plan::{EAST, Public, SITES, WEST},
    program::requests::{Of, SYN, Tunnelled, packet, tcp},
    wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const NAME: &str = "www.shop.test.";

#[test]
fn an_override_counts_at_every_site_stays_beside_the_measurement_and_survives_a_restart() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    lab.agent("east")?.order(&["set", "www", "down"])?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;

    let agent = lab.agent("east")?;
    agent.kill()?;
    agent.start()?;
    agent.await_ready()?;
    lab.await_answers("client-e", &SITES, Public::Www, &[WEST])?;
    let status = agent.status()?;
    let www = status["resources"].as_array().and_then(|all| all.iter().find(|r| r["name"] == "www")).context("www")?;
    let east = &www["instances"][0];
    assert_eq!((&east["site"], &east["forced"]), (&"east".into(), &"down".into()));
    assert_eq!((&east["measured"], &east["available"]), (&true.into(), &false.into()), "both are shown");

    lab.agent("east")?.order(&["set", "www", "auto"])?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    Ok(())
}

#[test]
fn an_override_for_the_peers_instance_counts_here_alone() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    lab.agent("east")?.order(&["set", "www@west", "down"])?;
    lab.await_answers("client-e", &[EAST], Public::Www, &[EAST])?;
    lab.await_answers("client-e", &[WEST], Public::Www, &[EAST, WEST])?;
    Ok(())
}

#[test]
fn explain_says_which_rule_put_which_address_where() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let said = lab.agent("west")?.order(&["explain", "www.shop.test", "--client", "203.0.113.10"])?;
    for words in [
        "1. east: 192.0.2.80, 2001:db8:1:80::80; active and available (the peer reports: 2 of 2 backends pass)",
        "2. west: 198.51.100.80, 2001:db8:2:80::80; active and available (this site's probes: 2 of 2 backends pass)",
        "policy fixed, order east, west",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    let said = lab.agent("west")?.order(&["explain", "orders.shop.test", "--json"])?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    assert_eq!(said["addresses"][0], "192.0.2.81", "the active instance before the standby one");
    Ok(())
}

#[test]
fn what_does_not_exist_cannot_be_set_and_the_error_names_what_does() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let east = lab.agent("east")?;
    let refused = |arguments: &[&str]| east.order(arguments).unwrap_err().to_string();
    assert!(refused(&["set", "wwww", "down"]).contains("it has: accounts, orders, www"));
    assert!(refused(&["set", "www@north", "down"]).contains("it has: east, west"));
    assert!(refused(&["set", "www", "sideways"]).contains("possible values: up, down, auto"));
    Ok(())
}

#[test]
fn a_reload_takes_a_new_configuration_without_a_lost_query() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    let mut streams = Vec::new();
    for (kind, family) in lab::FAMILIES {
        streams.push(lab.ask_steadily("client-e", EAST.public(Public::Dns)[family], NAME, kind)?);
    }
    // One after the other: the order of sites by `siteswap reload`, a static record by SIGHUP.
    lab.agent("east")?.edit(r#"order = ["east", "west"]"#, r#"order = ["west", "east"]"#)?;
    lab.agent("east")?.order(&["reload"])?;
    lab.await_answers("client-e", &[EAST], Public::Www, &[WEST, EAST])?;

    let zone = lab.directory().join("shop.test.zone");
    fs::write(&zone, fs::read_to_string(&zone)? + "new IN A 192.0.2.91\n")?;
    let process = lab.processes().into_iter().find(|process| process.name() == "east").context("east's agent")?;
    kill(Pid::from_raw(process.running().context("east's agent does not run")?.pid()), Signal::SIGHUP)?;
    let server = EAST.v4(Public::Dns).into();
    wait_until(Duration::from_secs(15), "the new record is answered", || {
        lab.ask("client-e", server, "new.shop.test.", RecordType::A).is_ok_and(|found| found.len() == 1)
    })?;
    for stream in streams {
        let asked = stream.finish()?;
        let lost = asked.iter().filter(|asked| asked.answer.is_none()).count();
        assert_eq!(lost, 0, "of {} queries", asked.len());
    }
    Ok(())
}

#[test]
fn a_bad_configuration_is_refused_with_its_line_and_the_old_one_stays() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;
    lab.agent("east")?.edit(r#"order = ["east", "west"]"#, r#"order = ["east", "north"]"#)?;
    let refused = lab.agent("east")?.order(&["reload"]).unwrap_err().to_string();
    assert!(refused.contains("east.toml:") && refused.contains("north"), "{refused}");
    lab.await_answers("client-e", &SITES, Public::Www, &[EAST, WEST])?;

    lab.agent("east")?.edit(r#"order = ["east", "north"]"#, r#"order = ["east", "west"]"#)?;
    fs::write(lab.directory().join("shop.test.zone"), "this is no zone\n")?;
    let refused = lab.agent("east")?.order(&["reload"]).unwrap_err().to_string();
    assert!(refused.contains("shop.test.zone:"), "{refused}");
    let server = EAST.v4(Public::Dns).into();
    assert_eq!(lab.ask("client-e", server, "mail.shop.test.", RecordType::A)?.len(), 1, "the old zone is served");
    Ok(())
}

#[test]
fn explain_says_what_would_become_of_a_packet_and_changes_nothing() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let east = lab.agent("east")?;
    let counters = || -> Result<serde_json::Value> { Ok(east.status()?["program"]["counters"].clone()) };
    let explain = |to: &str| -> Result<serde_json::Value> {
        let arguments = ["explain", "--json", "--packet", "tcp", "203.0.113.10:40000", to];
        Ok(serde_json::from_str(&east.order(&arguments)?)?)
    };
    let sum = |counters: &serde_json::Value| ["served", "forwarded"].map(|name| counters[name].as_u64());
    let before = counters()?;
    let held_by_west = explain("192.0.2.82:7001")?;
    assert_eq!((&held_by_west["outcome"], &held_by_west["resource"]), (&"forwarded".into(), &"accounts".into()));
    assert_eq!(held_by_west["target"], "10.255.0.2");
    let held_here = explain("192.0.2.81:7001")?;
    assert_eq!((&held_here["outcome"], &held_here["target"]), (&"served".into(), &"10.1.0.21".into()));
    assert_eq!(held_here["established"], false);
    assert_eq!(explain("192.0.2.81:7001")?["established"], false, "the first question made no flow");
    assert_eq!(explain("192.0.2.81:80")?["outcome"], "other_port");
    assert_eq!(explain("192.0.2.99:80")?["resource"], serde_json::Value::Null);
    assert_eq!(sum(&counters()?), sum(&before), "nothing is counted");
    assert!(east.order(&["explain", "--packet", "tcp", "nonsense"]).unwrap_err().to_string().contains("SOURCE:PORT"));
    Ok(())
}

/// A whole frame, as it is in a capture.
#[test]
fn explain_opens_a_frame_that_came_through_the_tunnel() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let east = lab.agent("east")?;
    lab.await_holder(&SITES, Public::Orders, EAST, 0)?;
    let inner = packet(Of::Orders, false, 6, tcp(40_000, 7001, SYN, 0)).frame()[14..].to_vec();
    let frame = Tunnelled::new(3, &inner).frame();
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let said = east.order(&["explain", "--packet", &digits])?;
    for words in [
        "UDP from 10.255.0.2:49443 to 10.255.0.1:7401.",
        "Inside, forwarded by west in epoch 3: TCP from 203.0.113.10:40000 to 192.0.2.81:7001.",
        "Outcome served_for_peer: ",
        "It is for orders, epoch ",
        "It goes to 10.1.0.21 through interface lan0 (",
        "): no flow is known.",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    let said: serde_json::Value = serde_json::from_str(&east.order(&["explain", "--json", "--packet", &digits])?)?;
    assert_eq!((&said["resource"], &said["interface_name"]), (&"orders".into(), &"lan0".into()));
    Ok(())
}

#[test]
fn explain_tells_a_flow_whose_backend_is_gone_from_one_that_is_not_known() -> Result<()> {
    let lab = Lab::up(&Options::default())?;
    let (east, www) = (lab.agent("east")?, EAST.v4(Public::Www));
    let client = lab.node("client-e")?.enter(|| Ok(TcpStream::connect((www, 80))?.local_addr()?.to_string()))?;
    let explain = |options: &[&str]| {
        let packet = ["--packet", "tcp", &client, &format!("{www}:80")];
        east.order(&[&["explain"], options, &packet].concat())
    };
    let json = || -> Result<serde_json::Value> { Ok(serde_json::from_str(&explain(&["--json"])?)?) };
    let known = json()?;
    assert_eq!((&known["established"], &known["moved"]), (&true.into(), &false.into()));
    let (gone, left) = match known["target"] == "10.1.0.11" {
        true => ("east-web1", "10.1.0.12"),
        false => ("east-web2", "10.1.0.11"),
    };
    lab.kill(gone)?;
    wait_until(Duration::from_secs(15), &format!("its flow goes to {left}"), || {
        json().is_ok_and(|said| said["target"] == left)
    })?;
    let moved = json()?;
    assert_eq!((&moved["established"], &moved["moved"]), (&false.into(), &true.into()));
    let said = explain(&[])?;
    assert!(said.contains("its flow is known, but cannot stay where it was"), "{said}");
    Ok(())
}
