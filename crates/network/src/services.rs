//! The server's own listeners that sandboxes talk to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::dns::{Forwarder, Upstreams};
use crate::names::Subnet;
use crate::netlink::{Netlink, NetlinkError};
use crate::nft::script::ServicePorts;
use crate::proxy::{Dialer, Protocol, Proxy};
use crate::registry::Registry;

/// The listeners; they stop when this is dropped.
pub(crate) struct Services {
    pub(crate) ports: ServicePorts,
    _tasks: JoinSet<()>,
}

/// Binds the listeners to the service address and serves them.
pub(crate) async fn start(
    subnet: Subnet,
    registry: &Arc<Registry>,
    upstreams: &Arc<Upstreams>,
    dialer: &Arc<Dialer>,
    authority: Arc<Authority>,
) -> io::Result<Services> {
    let any_port = SocketAddr::new(IpAddr::V4(subnet.service()), 0);
    let udp = UdpSocket::bind(any_port).await?;
    let tcp = TcpListener::bind(any_port).await?;
    let http = TcpListener::bind(any_port).await?;
    let tls = TcpListener::bind(any_port).await?;
    let any = TcpListener::bind(any_port).await?;
    let ports = ServicePorts {
        dns_udp: udp.local_addr()?.port(),
        dns_tcp: tcp.local_addr()?.port(),
        http: http.local_addr()?.port(),
        tls: tls.local_addr()?.port(),
        any: any.local_addr()?.port(),
    };
    let mut tasks = JoinSet::new();
    let forwarder = Arc::new(Forwarder::new(Arc::clone(registry), Arc::clone(upstreams)));
    tasks.spawn(Arc::clone(&forwarder).serve_udp(udp));
    tasks.spawn(forwarder.serve_tcp(tcp));
    let proxy = Proxy::new(Arc::clone(registry), Arc::clone(dialer), authority);
    let proxy = Arc::new(proxy);
    tasks.spawn(Arc::clone(&proxy).serve(http, Protocol::Http));
    tasks.spawn(Arc::clone(&proxy).serve(tls, Protocol::Tls));
    tasks.spawn(proxy.serve(any, Protocol::Any));
    Ok(Services {
        ports,
        _tasks: tasks,
    })
}

/// Puts the service address on `lo`, where it stays over restarts of the server.
pub(crate) fn add_address(subnet: Subnet) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let lo = netlink.index_of("lo")?;
    match netlink.add_address(lo, subnet.service(), 32) {
        Err(error) if error.is_present() => Ok(()),
        other => other,
    }
}

/// Takes the service address away.
pub(crate) fn delete_address(subnet: Subnet) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let lo = netlink.index_of("lo")?;
    netlink.delete_address(lo, subnet.service(), 32)
}
