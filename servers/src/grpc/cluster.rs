//! The calls about the cluster that the logs are in: each one asks it, and converts the answer.

use std::sync::Arc;

use tonic::{Request, Response, async_trait};
use virtuallog::Segment;
use virtuallog::server::{self, ClusterInfo, LogletStatus, MemberStatus, NodeInfo};

use super::Gateway;
use super::proto::{self, cluster_server};
use super::service::{Reply, reply, segment};
use super::status::status;

/// The service `Cluster` over the store of a gateway.
pub(super) struct Cluster(pub(super) Arc<Gateway>);

#[async_trait]
impl cluster_server::Cluster for Cluster {
    async fn list_nodes(
        &self,
        _request: Request<proto::ListNodesRequest>,
    ) -> Reply<proto::ListNodesReply> {
        reply(server::nodes(&self.0.store()).await.map(nodes))
    }

    async fn get_status(&self, request: Request<proto::GetStatusRequest>) -> Reply<proto::Status> {
        let url = self.0.url(&request.into_inner().log).map_err(status)?;
        let segments = server::status(&url).await.map_err(status)?;
        let segments = segments.into_iter().map(segment_status).collect();
        Ok(Response::new(proto::Status { segments }))
    }

    async fn drain_node(
        &self,
        request: Request<proto::DrainNodeRequest>,
    ) -> Reply<proto::DrainNodeReply> {
        let drained = server::drain(&self.0.store(), request.into_inner().node).await;
        reply(drained.map(|()| proto::DrainNodeReply {}))
    }

    async fn remove_node(
        &self,
        request: Request<proto::RemoveNodeRequest>,
    ) -> Reply<proto::RemoveNodeReply> {
        let removed = server::remove(&self.0.store(), request.into_inner().node).await;
        reply(removed.map(|()| proto::RemoveNodeReply {}))
    }
}

fn nodes(cluster: ClusterInfo) -> proto::ListNodesReply {
    let ClusterInfo { id, nodes, metastore } = cluster;
    let row = |node: NodeInfo| proto::Node {
        number: node.node,
        address: node.address,
        zone: node.zone,
        roles: node.roles.to_string().split(',').map(str::to_owned).collect(),
        metastore: metastore.contains(&node.node),
        alive: node.alive,
        draining: node.draining,
        sequences: node.sequences,
    };
    let nodes = nodes.into_iter().map(row).collect();
    proto::ListNodesReply { cluster_id: format!("{id:032x}"), nodes }
}

fn segment_status((of, held): (Segment, Option<LogletStatus>)) -> proto::SegmentStatus {
    let sequencer = held.as_ref().map_or(0, |held| held.sequencer);
    let members = held.into_iter().flat_map(|held| held.members).map(member_status).collect();
    proto::SegmentStatus { segment: Some(segment(&of)), members, sequencer }
}

fn member_status(member: MemberStatus) -> proto::MemberStatus {
    proto::MemberStatus {
        node: member.node,
        error: member.error.unwrap_or_default(),
        tail: member.tail,
        sealed: member.sealed,
        known_tail: member.known_tail,
        trim: member.trim,
    }
}
