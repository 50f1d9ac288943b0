"""Keep process trees from outliving the orchestrator."""
