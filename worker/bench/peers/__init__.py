"""`worker bench peers`: maskmill beside the programs that people would use instead, with the same weights.

pictures        photographs of one size in a folder
rembg_folder    `rembg p`, folder to folder
script          a loop with ONNX Runtime or OpenVINO, as a script would have; runs in an environment of its own
contest         all take turns; masks are compared
report          rates, core-seconds, memory and agreement
"""
