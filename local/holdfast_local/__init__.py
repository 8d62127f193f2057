"""The stand-in cluster: enough API server and kubelet for laptops and tests, never for production."""
