//! The metrics of a node among others: those that a node without others does not have.

use metrics::{Label, counter, gauge};
use nexa_cluster::peers::ClassTraffic;
use nexa_cluster::stats::{BudgetStats, CLASSES, ClusterStats, FAILOVER, MIGRATION};
use nexa_sched::lease::Meter;

use super::{Figure, HistogramFigure, Kind, LONG_WAITS, WAITS, histogram};

/// One field of [`ClusterStats`], as a metric.
pub struct ClusterFigure {
    /// The metric.
    pub figure: Figure,
    /// Its value.
    pub read: fn(&ClusterStats) -> f64,
}

const fn of(name: &'static str, kind: Kind, help: &'static str, read: fn(&ClusterStats) -> f64) -> ClusterFigure {
    ClusterFigure { figure: Figure { name, kind, help }, read }
}

/// What a node counts as one of several.
pub const CLUSTER: &[ClusterFigure] = &[
    of("nexa_cluster_members", Kind::Gauge, "Nodes that are there.", |stats| stats.members as f64),
    of("nexa_cluster_suspects", Kind::Gauge, "Of these, silent ones.", |stats| stats.suspects as f64),
    of("nexa_cluster_links_up", Kind::Gauge, "Nodes to which messages can be handed over now.", |stats| {
        stats.links_up as f64
    }),
    of("nexa_cluster_is_leader", Kind::Gauge, "1 while this node leads, and works already.", |stats| {
        f64::from(stats.leads)
    }),
    of("nexa_cluster_agents_placed_total", Kind::Counter, "Agents given to nodes at this node's word.", |stats| {
        stats.agents_placed as f64
    }),
    of("nexa_cluster_migrations_total", Kind::Counter, "Agents that moved from this node while they lived.", |stats| {
        stats.migrations as f64
    }),
    of("nexa_cluster_migrations_failed_total", Kind::Counter, "Agents that were to move and did not.", |stats| {
        stats.migrations_failed as f64
    }),
    of("nexa_cluster_failovers_total", Kind::Counter, "Lost nodes all of whose agents have others.", |stats| {
        stats.failovers as f64
    }),
];

/// What goes over links, by `class`.
struct LinkFigure {
    figure: Figure,
    read: fn(&ClassTraffic) -> u64,
}

const fn link(name: &'static str, help: &'static str, read: fn(&ClassTraffic) -> u64) -> LinkFigure {
    LinkFigure { figure: Figure { name, kind: Kind::Counter, help }, read }
}

const LINKS: &[LinkFigure] = &[
    link("nexa_link_messages_sent_total", "Messages to other nodes, by class.", |of| of.sent),
    link("nexa_link_bytes_sent_total", "Their bytes.", |of| of.sent_bytes),
    link("nexa_link_messages_received_total", "Messages of other nodes, by class.", |of| of.received),
    link("nexa_link_bytes_received_total", "Their bytes.", |of| of.received_bytes),
    link("nexa_link_resent_total", "Messages sent again after a connection broke, by class.", |of| of.resent),
    link("nexa_link_queue_full_total", "Messages refused because the queue to their node was full.", |of| of.full),
];

/// What a node has of the budgets of model providers, by `provider` and `meter`.
struct BudgetFigure {
    figure: Figure,
    /// Nothing where there is no limit.
    read: fn(&BudgetStats, Meter) -> Option<u64>,
}

const BUDGETS: &[BudgetFigure] = &[
    BudgetFigure {
        figure: Figure {
            name: "nexa_cluster_budget_held",
            kind: Kind::Gauge,
            help: "What this node holds of a provider's budget, by provider and meter.",
        },
        read: |budget, meter| budget.held.limit(meter),
    },
    BudgetFigure {
        figure: Figure {
            name: "nexa_cluster_budget_wanted",
            kind: Kind::Gauge,
            help: "What is used of it and waits for it, together.",
        },
        read: |budget, meter| budget.wanted.limit(meter),
    },
];

/// How long things take between nodes.
pub const CLUSTER_HISTOGRAMS: &[HistogramFigure] = &[
    histogram(MIGRATION, WAITS, "From telling an agent to move until the other node had taken it up."),
    histogram(FAILOVER, LONG_WAITS, "From finding a node lost until all of its agents had others."),
];

/// Every one of them.
pub(super) fn all() -> impl Iterator<Item = Figure> {
    let links = LINKS.iter().map(|link| link.figure);
    let histograms = CLUSTER_HISTOGRAMS.iter().map(|known| known.figure);
    CLUSTER
        .iter()
        .map(|known| known.figure)
        .chain(links)
        .chain(BUDGETS.iter().map(|known| known.figure))
        .chain(histograms)
}

fn name(meter: Meter) -> &'static str {
    match meter {
        Meter::Requests => "requests",
        Meter::InputTokens => "input_tokens",
        Meter::OutputTokens => "output_tokens",
        Meter::Concurrency => "concurrency",
    }
}

/// Puts what a node counts where it is read, with labels beside those of each metric.
pub(crate) fn put(stats: &ClusterStats, labels: &[Label]) {
    let with = |more: &[(&'static str, String)]| -> Vec<Label> {
        let more = more.iter().map(|(name, value)| Label::new(*name, value.clone()));
        labels.iter().cloned().chain(more).collect()
    };
    for known in CLUSTER {
        super::put(&known.figure, (known.read)(stats), with(&[]));
    }
    for (class, traffic) in CLASSES.iter().zip(&stats.traffic) {
        for link in LINKS {
            counter!(link.figure.name, with(&[("class", (*class).to_owned())])).absolute((link.read)(traffic));
        }
    }
    for budget in &stats.budgets {
        for meter in Meter::ALL {
            for BudgetFigure { figure, read } in BUDGETS {
                let labels = with(&[("provider", budget.provider.clone()), ("meter", name(meter).to_owned())]);
                // What has no limit is not held either.
                if let Some(size) = read(budget, meter) {
                    gauge!(figure.name, labels).set(size as f64);
                }
            }
        }
    }
}
