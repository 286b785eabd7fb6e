//! What both sides of a connection show, and by what they judge each other.

use std::time::Duration;

use nexa_types::NodeId;
use tonic::Request;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, ClientTlsConfig, Identity as Shown, ServerTlsConfig};

use crate::certs::{Identity, Seen};

/// One node's certificate and whom it trusts.
pub(super) struct Tls {
    shown: Shown,
    authority: Certificate,
    handshake_max: Duration,
}

impl Tls {
    pub(super) fn new(identity: &Identity, handshake_max: Duration) -> Self {
        Self {
            shown: Shown::from_pem(&identity.certificate, &identity.key),
            authority: Certificate::from_pem(&identity.authority),
            handshake_max,
        }
    }

    /// For a connection to a node: only its own certificate will do.
    pub(super) fn client(&self, node: &NodeId) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.shown.clone())
            .ca_certificate(self.authority.clone())
            .domain_name(node.as_str())
            .timeout(self.handshake_max)
    }

    /// For connections from nodes: whoever shows none is not let in.
    pub(super) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.shown.clone())
            .client_ca_root(self.authority.clone())
            .client_auth_optional(false)
            .timeout(self.handshake_max)
    }
}

/// Whether the certificate behind a request is made out to a node. That the authority has signed it and that it counts
/// today, the handshake has seen to.
pub(super) fn is_from<T>(request: &Request<T>, node: &str) -> bool {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = info.and_then(TlsConnectInfo::peer_certs);
    let first = certificates.as_ref().and_then(|certificates| certificates.first());
    first.and_then(|der| Seen::of(der)).is_some_and(|seen| seen.is_for(node))
}
