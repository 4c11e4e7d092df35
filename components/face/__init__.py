"""The face of a photo, found and cut out by TensorFlow operations.

yunet.py         the network that finds faces, and its weights in yunet.npz
finder.py        which face of a photo counts, what speaks against it, and its square
read_weights.py  makes yunet.npz
"""
