attune_add_test(weights_formats LABEL unit LINK attune_weights SOURCES unit/weights_formats.cpp)
attune_add_test(weights_model_files LABEL unit LINK attune_weights SOURCES unit/weights_model_files.cpp)
attune_add_test(weights_export LABEL unit LINK attune_weights SOURCES unit/weights_export.cpp)
