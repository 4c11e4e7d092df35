"""A model server for one machine, as `tensorflow_model_server` is: `goodseed serve`.

Needs TensorFlow and tensorflow-serving-api, which the plain install does not bring: nothing
outside of this package imports it but where `goodseed serve` starts.
"""
