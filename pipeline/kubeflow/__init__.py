"""The graph on Kubeflow Pipelines: the package for the server, and the code of its pods."""
