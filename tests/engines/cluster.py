"""A Ray cluster of several nodes on this machine: prints its address, then does what the lines on stdin say.

`add N` adds a node of N cores; `kill` kills the node added last, without a warning. It ends with its stdin.
"""

import sys

from ray.cluster_utils import Cluster

HEAD = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=100 << 20)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        what, *number = line.split()
        if what == "add":
            nodes.append(cluster.add_node(num_cpus=int(number[0]), object_store_memory=100 << 20))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
