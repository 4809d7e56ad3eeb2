//! What the kernel refuses, each with an error that says what to do.

mod dataplane_support;

use std::{fs, net::IpAddr};

use dataplane_support::*;
use nix::{errno::Errno, libc};
use siteswap::{
    config::{self, Mode},
    dataplane::{Dataplane, Error, must_exist},
};

fn refusal(config: &config::Dataplane) -> String {
    Dataplane::start(config, &answering(&[EDGE.into()])).expect_err("refused").to_string()
}

#[test]
fn an_interface_that_does_not_exist_is_named_with_those_that_do() {
    new_namespace();
    ip("link add edge0 type veth peer name edge1");
    let names = ["edge0", "eth7"].map(str::to_owned);
    let error = must_exist(names.iter()).unwrap_err().to_string();
    assert!(error.contains("`eth7`"), "{error}");
    assert!(error.contains("lo") && error.contains("edge0") && error.contains("edge1"), "{error}");
    must_exist(names[..1].iter()).unwrap();
}

#[test]
fn a_driver_without_native_mode_is_an_error_only_if_native_was_asked_for() {
    new_namespace();
    let pins = Pins::new("native");
    let mut config = pins.config(&["lo"]);
    config.mode = Mode::Native;
    let error = refusal(&config);
    assert!(error.contains("`lo`") && error.contains("generic"), "{error}");
    config.mode = Mode::Auto;
    let dataplane = Dataplane::start(&config, &answering(&[EDGE.into()])).unwrap();
    assert_eq!(dataplane.attachments()[0].1.name(), "generic");
}

#[test]
fn an_interface_with_another_program_is_refused_and_left_alone() {
    new_namespace();
    let (first, second) = (Pins::new("first"), Pins::new("second"));
    ip("link add edge0 type veth peer name edge1");
    let _first = started(&first.config(&["edge0"]), EDGE);
    let before = xdp_on("edge0");
    // The second has an interface of its own, too: after the refusal it has none.
    let error = refusal(&second.config(&["edge1", "edge0"]));
    assert!(error.contains("another XDP program") && error.contains("`edge0`"), "{error}");
    assert_eq!(xdp_on("edge0"), before);
    assert_eq!(xdp_on("edge1"), "");
}

#[test]
fn pins_elsewhere_than_on_a_bpf_file_system_are_refused() {
    new_namespace();
    let directory = tempfile::tempdir().unwrap();
    let config = config::Dataplane { pins: directory.path().join("pins"), ..Pins::new("unused").config(&["lo"]) };
    let error = refusal(&config);
    assert!(error.contains("`dataplane.pins`") && error.contains("mount -t bpf"), "{error}");
    assert_eq!(xdp_on("lo"), "");
}

#[test]
fn more_addresses_than_the_program_has_room_for_are_refused() {
    new_namespace();
    let pins = Pins::new("addresses");
    let dns: Vec<IpAddr> = (1..=9).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let error = Dataplane::start(&pins.config(&["lo"]), &answering(&dns)).unwrap_err();
    assert!(matches!(error, Error::TooMany { count: 9, most: 8, .. }), "{error}");
}

#[test]
fn without_privileges_the_error_says_which_are_needed() {
    new_namespace();
    let pins = Pins::new("privileges");
    let config = pins.config(&["lo"]);
    // In a thread of its own, because only that thread gives its privileges up: libc's setresuid would change all.
    let error = std::thread::spawn(move || {
        // SAFETY: a system call on integers.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        Errno::result(result).unwrap();
        refusal(&config)
    });
    let error = error.join().unwrap();
    assert!(error.contains("root") && error.contains("CAP_BPF"), "{error}");
}

#[test]
fn the_pin_directory_cannot_change_under_a_running_program() {
    new_namespace();
    let (pins, other) = (Pins::new("moved"), Pins::new("elsewhere"));
    let mut dataplane = started(&pins.config(&["lo"]), EDGE);
    let error = dataplane.reconfigure(&other.config(&["lo"]), &answering(&[EDGE.into()])).unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
}

#[test]
fn a_pinned_map_of_another_shape_is_made_anew() {
    new_namespace();
    let (pins, shape) = (Pins::new("shape"), Pins::new("other"));
    drop(started(&shape.config(&["lo"]), EDGE));
    Dataplane::detach_pinned(&shape.0).unwrap();
    // An array of one where the counters should be.
    fs::create_dir_all(pins.file("")).unwrap();
    let file = pins.file("COUNTERS");
    let arguments = "map create FILE type percpu_array key 4 value 8 entries 1 name COUNTERS";
    let arguments = arguments.replace("FILE", file.to_str().unwrap());
    run("bpftool", &arguments.split(' ').collect::<Vec<_>>());
    let dataplane = Dataplane::start(&pins.config(&["lo"]), &answering(&[EDGE.into()])).unwrap();
    assert!(dataplane.counters().unwrap().len() > 1);
}
