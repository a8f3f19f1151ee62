# SPDX-License-Identifier: Apache-2.0
"""What is measured on a card, by parts: activations.py, linear.py, calibrate.py, model.py."""
