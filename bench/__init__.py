"""pyetcd measured beside real etcd. `make bench` runs it; `python -m bench --help` lists the options."""
