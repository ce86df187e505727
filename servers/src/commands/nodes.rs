//! `init` and `nodes`: making a cluster, and changing who belongs to it.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;
use virtuallog::server::{self, ClusterInfo, NodeInfo};
use virtuallog::url::parse_host;

use super::StoreArg;
use crate::cli::Context;
use crate::output::{Report, Stop, counted, table};

/// Make a cluster of servers that belong to none yet; once
///
/// When it was interrupted, the same again completes it.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where the servers are: `HOST:PORT`, several with commas between them
    #[arg(required = true, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    addresses: Vec<String>,
}

fn address(text: &str) -> Result<String, String> {
    parse_host(text.trim()).map_err(|error| error.message().to_owned())
}

/// Show the nodes of a cluster, and change who belongs to it
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who belongs to the cluster
    List {
        #[command(flatten)]
        store: StoreArg,
    },
    /// Move what a node sequences to others, and place nothing new on it until it starts again
    #[command(allow_missing_positional = true)]
    Drain {
        #[command(flatten)]
        store: StoreArg,
        #[command(flatten)]
        node: NodeArg,
    },
    /// Take a node out for good: what it holds is copied to others first
    #[command(allow_missing_positional = true)]
    Remove {
        #[command(flatten)]
        store: StoreArg,
        #[command(flatten)]
        node: NodeArg,
    },
}

#[derive(Debug, Args)]
struct NodeArg {
    /// The node's number, as `nodes list` shows it
    #[arg(value_name = "NODE")]
    node: u32,
}

/// A cluster, and where it is reached.
#[derive(Debug, Serialize)]
pub(super) struct ClusterReport {
    cluster: String,
    url: String,
    pub(super) nodes: Vec<NodeRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeRow {
    node: u32,
    address: String,
    zone: String,
    roles: Vec<&'static str>,
    /// Whether it is one of those that hold the chains.
    metastore: bool,
    pub(super) alive: bool,
    draining: bool,
    /// How many loglets it sequences.
    sequences: u32,
    storage: String,
}

impl ClusterReport {
    pub(super) fn new(cluster: ClusterInfo) -> Self {
        let addresses: Vec<&str> = cluster.nodes.iter().map(|node| &*node.address).collect();
        let url = format!("virtuallog://{}/", addresses.join(","));
        let row = |node| NodeRow::new(node, &cluster.metastore);
        ClusterReport {
            cluster: format!("{:032x}", cluster.id),
            url,
            nodes: cluster.nodes.iter().map(row).collect(),
        }
    }
}

impl NodeRow {
    fn new(node: &NodeInfo, metastore: &[u32]) -> Self {
        let roles = node.roles;
        let roles =
            [(roles.log, "log"), (roles.sequencer, "sequencer"), (roles.metastore, "metastore")];
        NodeRow {
            node: node.node,
            address: node.address.clone(),
            zone: node.zone.clone(),
            roles: roles.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect(),
            metastore: metastore.contains(&node.node),
            alive: node.alive,
            draining: node.draining,
            sequences: node.sequences,
            storage: format!("{:032x}", node.storage),
        }
    }

    fn cells(&self) -> Vec<String> {
        let state = match (self.alive, self.draining) {
            (false, _) => "silent",
            (true, true) => "draining",
            (true, false) => "up",
        };
        let zone = if self.zone.is_empty() { "-" } else { &self.zone };
        let metastore = if self.metastore { "yes" } else { "-" };
        let (node, sequences) = (self.node.to_string(), self.sequences.to_string());
        let (address, roles) = (self.address.clone(), self.roles.join(","));
        vec![node, address, zone.into(), roles, metastore.into(), state.into(), sequences]
    }
}

impl Report for ClusterReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = counted(self.nodes.len() as u64, "node", "nodes");
        writeln!(out, "cluster {} of {count}: {}", self.cluster, self.url)?;
        let heading = ["node", "address", "zone", "roles", "metastore", "state", "sequences"];
        let heading = heading.map(String::from).to_vec();
        let rows = self.nodes.iter().map(NodeRow::cells);
        table(out, &std::iter::once(heading).chain(rows).collect::<Vec<_>>())
    }
}

pub(crate) async fn init(cx: &Context, args: InitArgs) -> Result<(), Stop> {
    cx.out.report(&ClusterReport::new(server::init(&args.addresses).await?))
}

pub(crate) async fn nodes(cx: &Context, args: NodesArgs) -> Result<(), Stop> {
    let store = match args.what {
        What::List { store } => store,
        What::Drain { store, node } => {
            server::drain(&store.url, node.node).await?;
            store
        }
        What::Remove { store, node } => {
            server::remove(&store.url, node.node).await?;
            store
        }
    };
    cx.out.report(&ClusterReport::new(server::nodes(&store.url).await?))
}
