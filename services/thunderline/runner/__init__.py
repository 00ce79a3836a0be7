"""One rank of each instance on this node: model files, rank processes, text in and out."""
