"""One module per inference engine; each implements `edge_agent.ports.Engine`."""
