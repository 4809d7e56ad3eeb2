//! What is up, for people and programs.

use anyhow::Result;
use serde_json::json;

use crate::{lab::Lab, plan};

/// Prints nodes with their addresses and processes, and what the agents say of themselves.
///
/// # Errors
/// Output fails.
pub fn show(lab: &Lab, as_json: bool) -> Result<()> {
    let processes = lab.processes();
    let running = |node: &str| processes.iter().find(|process| process.name() == node).map(|process| process.running());
    if as_json {
        let nodes = plan::nodes().into_iter().map(|node| {
            let addresses: Vec<String> = plan::addresses(&node).iter().map(|a| a.address.to_string()).collect();
            let pid = running(&node).flatten().map(|identity| identity.pid());
            let agent = plan::Site::named(&node).and_then(|site| lab.agent(site.name).ok()?.status().ok());
            json!({ "node": node, "addresses": addresses, "pid": pid, "agent": agent })
        });
        let all = json!({ "directory": lab.directory(), "pins": lab.pins(), "nodes": nodes.collect::<Vec<_>>() });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for node in plan::nodes() {
        let state = match running(&node) {
            None => "-".to_owned(),
            Some(None) => "not running".to_owned(),
            Some(Some(identity)) => format!("pid {}", identity.pid()),
        };
        let addresses: Vec<String> = plan::addresses(&node).iter().map(|a| a.address.to_string()).collect();
        println!("{node:<10} {state:<12} {}", addresses.join(" "));
    }
    println!("files and logs: {}", lab.directory().display());
    for site in plan::SITES.into_iter().filter(|site| running(site.name).is_some()) {
        println!("\nsiteswap status at {}:", site.name);
        let output = lab.agent(site.name)?.command(&["status"])?;
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
